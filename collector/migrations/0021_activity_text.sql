-- What the activity log is searched by: any three letters that follow each other. No row of `actions` ever goes, so their row numbers stay.
CREATE VIRTUAL TABLE actions_text USING fts5 (text, content = '', columnsize = 0, tokenize = 'trigram');
INSERT INTO actions_text (rowid, text)
    SELECT rowid, user || ' ' || action || ' ' || kind || ' ' || name || ' ' || target || ' ' || coalesce(reason, '') || ' '
        || coalesce(was, '') || ' ' || coalesce(became, detail) FROM actions;
