-- What jobs refused, in the last run of each job and part (a source, collection or ranking), the most frequent first.
-- A run that refused nothing has no rows here, so look at the run's id, too.
WITH latest AS (
    SELECT job, part, max(run_id) AS run_id
    FROM rejects
    GROUP BY job, part
)
SELECT r.job, r.part, r.run_id, r.stage, r.error_class, count(*) AS refused, min(r.message) AS example
FROM rejects r
JOIN latest l ON r.job = l.job AND r.part = l.part AND r.run_id = l.run_id
GROUP BY r.job, r.part, r.run_id, r.stage, r.error_class
ORDER BY refused DESC, r.job, r.part, r.stage, r.error_class
