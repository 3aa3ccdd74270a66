-- The overview counts a month of steps by day: without this it reads the record of every step that ever was.
CREATE INDEX violation_steps_at ON violation_steps (at, step, violation);
