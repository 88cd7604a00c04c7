-- Where most photographs of a ranking are: the best region of each image, counted.
-- parameters: the ranking.
WITH parameters (ranking) AS (VALUES ('example')),
-- An image counts by its latest run. Run ids sort by time, as those that jobs choose do.
latest AS (
    SELECT *
    FROM (
        SELECT s.*, row_number() OVER (PARTITION BY s.source, s.image_id ORDER BY s.run_id DESC) AS place
        FROM image_summary s
        JOIN parameters p ON s.ranking = p.ranking
    ) numbered
    WHERE place = 1
),
best AS (
    SELECT r.*
    FROM ranked_regions r
    JOIN parameters p ON r.ranking = p.ranking
    WHERE r.rank = 1
)
SELECT
    b.lat,
    b.lon,
    b.area_km2,
    b.overlay_hash,
    b.atom,
    count(*) AS images,
    avg(b.probability) AS mean_probability
FROM latest l
JOIN best b ON b.run_id = l.answer_run_id AND b.source = l.answer_source AND b.image_id = l.answer_image_id
GROUP BY b.lat, b.lon, b.area_km2, b.overlay_hash, b.atom
ORDER BY images DESC, b.overlay_hash, b.atom
