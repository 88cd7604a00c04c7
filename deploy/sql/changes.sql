-- What changed between the last two runs of a ranking: images whose best point moved, that are new, and that are gone.
-- A scan passes over files that have not changed since the run before; their images are "gone" here and count elsewhere.
-- parameters: the ranking; how far a best point may move without being a change, km.
WITH parameters (ranking, least_km) AS (VALUES ('example', 25.0)),
runs AS (
    SELECT run_id, row_number() OVER (ORDER BY run_id DESC) AS age
    FROM (SELECT DISTINCT s.run_id FROM image_summary s JOIN parameters p ON s.ranking = p.ranking) known
),
newer AS (
    SELECT s.*
    FROM image_summary s
    JOIN parameters p ON s.ranking = p.ranking
    JOIN runs r ON s.run_id = r.run_id AND r.age = 1
),
older AS (
    SELECT s.*
    FROM image_summary s
    JOIN parameters p ON s.ranking = p.ranking
    JOIN runs r ON s.run_id = r.run_id AND r.age = 2
),
compared AS (
    SELECT
        coalesce(n.source, o.source) AS source,
        coalesce(n.image_id, o.image_id) AS image_id,
        n.image_id IS NULL AS gone,
        o.image_id IS NULL AS new,
        (n.lat IS NULL) <> (o.lat IS NULL) AS one_sided,
        -- Some engines take the least of 1 and null for 1.
        CASE WHEN n.lat IS NOT NULL AND o.lat IS NOT NULL THEN 2 * 6371.0088 * asin(least(1.0, sqrt(
            power(sin(radians(n.lat - o.lat) / 2), 2)
            + cos(radians(n.lat)) * cos(radians(o.lat)) * power(sin(radians(n.lon - o.lon) / 2), 2)
        ))) END AS moved_km,
        o.lat AS lat_before,
        o.lon AS lon_before,
        n.lat,
        n.lon
    FROM newer n
    FULL OUTER JOIN older o ON n.source = o.source AND n.image_id = o.image_id
)
SELECT
    c.source,
    c.image_id,
    CASE WHEN c.new THEN 'new' WHEN c.gone THEN 'gone' ELSE 'moved' END AS change,
    c.moved_km,
    c.lat_before,
    c.lon_before,
    c.lat,
    c.lon
FROM compared c
CROSS JOIN parameters p
WHERE c.new OR c.gone OR c.one_sided OR c.moved_km > p.least_km
ORDER BY change, c.source, c.image_id
