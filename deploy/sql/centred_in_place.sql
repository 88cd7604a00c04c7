-- Regions whose centroids lie in a place, of one run, with the images that have them in their answers. Reads little: rows
-- are in folders by run, and sorted by S2 cell in their files.
-- parameters: the ranking, the run; the ranges of the place, as `python -m geosieve.sql.place` prints them.
WITH parameters (ranking, run_id) AS (VALUES ('example', '20261126T120000Z')),
ranges (first_leaf, last_leaf) AS (VALUES (1, 2)),
whole AS (SELECT min(first_leaf) AS first_leaf, max(last_leaf) AS last_leaf FROM ranges)
SELECT r.source, r.image_id, r.rank, r.probability, r.area_km2, r.lat, r.lon
FROM ranked_regions r
JOIN parameters p ON r.ranking = p.ranking AND r.run_id = p.run_id
JOIN whole w ON r.s2_id BETWEEN w.first_leaf AND w.last_leaf
JOIN ranges g ON r.s2_id BETWEEN g.first_leaf AND g.last_leaf
ORDER BY r.probability DESC, r.source, r.image_id, r.rank
