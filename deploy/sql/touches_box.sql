-- Images whose answer touches a box, by the bounding boxes of its regions: candidates, the most probable first.
-- Works for every ranking. touches_place.sql looks closer, where `atom_cells` is there.
-- parameters: the ranking; the share of the probability that counts as the answer (2: all rows that there are); the box
-- in degrees. A box across ±180 has a west greater than its east.
WITH parameters (ranking, mass, south, west, north, east) AS (VALUES ('example', 0.9, 40.0, -5.0, 45.0, 5.0)),
latest AS (
    SELECT *
    FROM (
        SELECT s.*, row_number() OVER (PARTITION BY s.source, s.image_id ORDER BY s.run_id DESC) AS place
        FROM image_summary s
        JOIN parameters p ON s.ranking = p.ranking
    ) numbered
    WHERE place = 1
),
touching AS (
    SELECT r.run_id, r.source, r.image_id, sum(r.probability) AS probability, min(r.rank) AS best_rank
    FROM ranked_regions r
    JOIN parameters p ON r.ranking = p.ranking
    WHERE r.cumulative_probability - r.probability < p.mass
        AND r.south <= p.north
        AND r.north >= p.south
        AND CASE
            WHEN r.west > r.east AND p.west > p.east THEN true
            WHEN r.west > r.east OR p.west > p.east THEN r.west <= p.east OR r.east >= p.west
            ELSE r.west <= p.east AND r.east >= p.west
        END
    GROUP BY r.run_id, r.source, r.image_id
)
SELECT l.source, l.image_id, t.probability, t.best_rank
FROM latest l
JOIN touching t ON t.run_id = l.answer_run_id AND t.source = l.answer_source AND t.image_id = l.answer_image_id
ORDER BY t.probability DESC, l.source, l.image_id
