-- The overview and the metrics count the deliveries that were given up on, and the page Alerts lists them: few among the many that are
-- kept, each of which was looked at.
CREATE INDEX outbox_given_up ON outbox (channel, given_up) WHERE given_up IS NOT NULL;
-- Which nodes are an image is asked of the nodes: nothing reads this index.
DROP INDEX node_images_image;
