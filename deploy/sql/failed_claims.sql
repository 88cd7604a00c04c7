-- Images whose position in EXIF contradicts their answer, the least fitting first.
-- parameters: the ranking; the p-value below which a claim fails (0: only those that the run itself found to fail).
WITH parameters (ranking, below) AS (VALUES ('example', 0.0)),
latest AS (
    SELECT *
    FROM (
        SELECT s.*, p.below, row_number() OVER (PARTITION BY s.source, s.image_id ORDER BY s.run_id DESC) AS place
        FROM image_summary s
        JOIN parameters p ON s.ranking = p.ranking
    ) numbered
    WHERE place = 1
)
SELECT l.source, l.image_id, l.claim_p, l.lat, l.lon, l.expected_km, l.out_of_domain, l.run_id
FROM latest l
WHERE l.claim_contradicts OR l.claim_p < l.below
ORDER BY l.claim_p, l.source, l.image_id
