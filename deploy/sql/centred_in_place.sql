-- Regions whose centroids lie in a place, of one run, with the images that have them in their answers. Reads least: rows
-- are in folders by run, and sorted by S2 cell in their files. DuckDB leaves out files only where the run stands in the
-- condition itself.
-- parameters: the ranges of the place, as `python -m geosieve.sql.place` prints them; below, the ranking and the run.
WITH ranges (first_leaf, last_leaf) AS (VALUES (1, 2)),
whole AS (SELECT min(first_leaf) AS first_leaf, max(last_leaf) AS last_leaf FROM ranges)
SELECT r.source, r.image_id, r.rank, r.probability, r.area_km2, r.lat, r.lon
FROM ranked_regions r
JOIN whole w ON r.s2_id BETWEEN w.first_leaf AND w.last_leaf
JOIN ranges g ON r.s2_id BETWEEN g.first_leaf AND g.last_leaf
WHERE r.ranking = 'example' AND r.run_id = '20260101T000000Z'
ORDER BY r.probability DESC, r.source, r.image_id, r.rank
