-- How good the answers are, by source: how many say nothing, and the median area that they need.
-- parameters: the ranking.
WITH parameters (ranking) AS (VALUES ('example')),
latest AS (
    SELECT *
    FROM (
        SELECT s.*, row_number() OVER (PARTITION BY s.source, s.image_id ORDER BY s.run_id DESC) AS place
        FROM image_summary s
        JOIN parameters p ON s.ranking = p.ranking
    ) numbered
    WHERE place = 1
),
-- The median without functions that engines name differently: the mean of the one or two rows in the middle.
ordered AS (
    SELECT
        source,
        area_50_km2,
        area_90_km2,
        row_number() OVER (PARTITION BY source ORDER BY area_50_km2) AS place_50,
        row_number() OVER (PARTITION BY source ORDER BY area_90_km2) AS place_90,
        count(*) OVER (PARTITION BY source) AS n
    FROM latest
    WHERE area_50_km2 IS NOT NULL AND area_90_km2 IS NOT NULL AND NOT no_evidence
),
medians AS (
    SELECT
        source,
        avg(CASE WHEN 2 * place_50 BETWEEN n AND n + 2 THEN area_50_km2 END) AS median_area_50_km2,
        avg(CASE WHEN 2 * place_90 BETWEEN n AND n + 2 THEN area_90_km2 END) AS median_area_90_km2
    FROM ordered
    GROUP BY source
)
SELECT
    l.source,
    count(*) AS images,
    sum(CASE WHEN l.no_evidence THEN 1 ELSE 0 END) AS no_evidence,
    sum(CASE WHEN l.contradiction THEN 1 ELSE 0 END) AS contradictions,
    sum(CASE WHEN l.cut_short THEN 1 ELSE 0 END) AS cut_short,
    sum(CASE WHEN l.out_of_domain THEN 1 ELSE 0 END) AS out_of_domain,
    max(m.median_area_50_km2) AS median_area_50_km2,
    max(m.median_area_90_km2) AS median_area_90_km2
FROM latest l
LEFT JOIN medians m ON m.source = l.source
GROUP BY l.source
ORDER BY l.source
