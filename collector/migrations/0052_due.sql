-- What waits for a channel, in the order in which it is sent: each look for what is due reads what it sends, and not all that waits.
CREATE INDEX outbox_due ON outbox (channel, next_attempt) WHERE delivered IS NULL AND given_up IS NULL;
