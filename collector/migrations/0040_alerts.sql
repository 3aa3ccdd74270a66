-- What was changed, whatever the node: the same digest on many nodes is one cause.
ALTER TABLE violations ADD COLUMN change BLOB;
CREATE INDEX violations_change ON violations (change) WHERE resolved IS NULL;

-- A row of the outbox is one message. Where a channel gathers, `change` and `step` say what it gathers, its body is made when it is
-- `closed`, and from then on it is the same bytes under the same id. `told` nodes were named in the messages before it (`follows`)
-- within one window, `nodes` in this one. Patience counts from `tried_from` after somebody has asked for another try.
ALTER TABLE outbox ADD COLUMN change BLOB;
ALTER TABLE outbox ADD COLUMN step TEXT;
ALTER TABLE outbox ADD COLUMN closed INTEGER;
ALTER TABLE outbox ADD COLUMN follows TEXT;
ALTER TABLE outbox ADD COLUMN nodes INTEGER;
ALTER TABLE outbox ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN tried_from INTEGER;
CREATE INDEX outbox_change ON outbox (channel, change, id) WHERE change IS NOT NULL;
CREATE INDEX outbox_settled ON outbox (channel, delivered);
CREATE INDEX outbox_delivered ON outbox (delivered) WHERE delivered IS NOT NULL;

-- The steps that a gathered message tells of.
CREATE TABLE message_steps (
    message TEXT NOT NULL,
    step    TEXT NOT NULL,
    node    TEXT NOT NULL,
    PRIMARY KEY (message, step)
) STRICT, WITHOUT ROWID;
CREATE INDEX message_steps_step ON message_steps (step);
