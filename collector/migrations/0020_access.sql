-- Which groups of nodes an account or a token is limited to: a JSON list of names, empty for all.
ALTER TABLE accounts ADD COLUMN reach TEXT NOT NULL DEFAULT '[]';
ALTER TABLE api_tokens ADD COLUMN reach TEXT NOT NULL DEFAULT '[]';

-- The activity log as an auditor asks for it: how somebody showed who they are (`session …`, `token …`, `local`), from which address,
-- what the target is and what it is called, on which node and in which group, before and after, and why. The triggers stay.
ALTER TABLE actions ADD COLUMN via TEXT NOT NULL DEFAULT '';
ALTER TABLE actions ADD COLUMN origin TEXT;
ALTER TABLE actions ADD COLUMN kind TEXT NOT NULL DEFAULT '';
ALTER TABLE actions ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE actions ADD COLUMN node TEXT;
ALTER TABLE actions ADD COLUMN grp TEXT;
ALTER TABLE actions ADD COLUMN was TEXT;
ALTER TABLE actions ADD COLUMN became TEXT;
ALTER TABLE actions ADD COLUMN reason TEXT;
-- How often within its minute, where the like is counted together.
ALTER TABLE actions ADD COLUMN count INTEGER NOT NULL DEFAULT 1;
CREATE INDEX actions_user ON actions (user, id);
CREATE INDEX actions_target ON actions (target, id);
CREATE INDEX actions_action ON actions (action, id);
CREATE INDEX actions_kind ON actions (kind, id);

-- Tokens that `login` exchanged a password for end with that password, as browser sessions do.
ALTER TABLE api_tokens ADD COLUMN login INTEGER NOT NULL DEFAULT 0;
CREATE INDEX api_tokens_user ON api_tokens (user);
-- An ended session is kept until it would have expired: who still comes with it is refused by name.
ALTER TABLE sessions ADD COLUMN ended INTEGER;
CREATE INDEX sessions_user ON sessions (user);
CREATE INDEX actions_node ON actions (node, id);
CREATE INDEX actions_name ON actions (name, id);
