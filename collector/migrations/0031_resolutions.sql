-- How a violation ended, as one of a few words; `resolution` stays the sentence that people read.
ALTER TABLE violations ADD COLUMN resolved_as TEXT;
UPDATE violations SET resolved_as = CASE
        WHEN resolution LIKE 'accepted by %' THEN 'accepted'
        WHEN resolution LIKE 'reviewed by %' THEN 'reviewed'
        WHEN resolution = 'closed by a rescan' THEN 'closed'
        WHEN resolution = 'heard again' THEN 'heard'
        WHEN resolution = 'within its budget again' THEN 'calmed'
        WHEN resolution = 'explained again' THEN 'explained'
        WHEN resolution = 'an allowed image again' THEN 'allowed'
        ELSE 'reverted'
    END
    WHERE resolved IS NOT NULL;
