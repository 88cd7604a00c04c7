-- Images whose answer touches a place: a polygon or box, given as ranges of S2 cells. Candidates, the most probable first.
-- Regions are compared by their cells in `atom_cells`. Where there are none, as for the joined regions of a ranking with
-- `least_km2`, their bounding boxes are compared with that of the place.
-- parameters: the ranking; the share of the probability that counts as the answer (2: all rows that there are); the
-- bounding box of the place and its ranges, as `python -m geosieve.sql.place` prints them.
WITH parameters (ranking, mass) AS (VALUES ('example', 0.9)),
place (south, west, north, east) AS (VALUES (40.0, -5.0, 45.0, 5.0)),
ranges (first_leaf, last_leaf) AS (VALUES (1, 2)),
latest AS (
    SELECT *
    FROM (
        SELECT s.*, row_number() OVER (PARTITION BY s.source, s.image_id ORDER BY s.run_id DESC) AS place
        FROM image_summary s
        JOIN parameters p ON s.ranking = p.ranking
    ) numbered
    WHERE place = 1
),
atoms AS (
    SELECT DISTINCT c.overlay_hash, c.atom
    FROM atom_cells c
    JOIN ranges g ON c.first_leaf <= g.last_leaf AND c.last_leaf >= g.first_leaf
),
known AS (SELECT DISTINCT overlay_hash FROM atom_cells),
touching AS (
    SELECT r.run_id, r.source, r.image_id, sum(r.probability) AS probability, min(r.rank) AS best_rank
    FROM ranked_regions r
    JOIN parameters p ON r.ranking = p.ranking
    CROSS JOIN place b
    LEFT JOIN atoms a ON r.overlay_hash = a.overlay_hash AND r.atom = a.atom
    LEFT JOIN known k ON r.overlay_hash = k.overlay_hash
    WHERE r.cumulative_probability - r.probability < p.mass
        AND (
            a.atom IS NOT NULL
            OR (
                k.overlay_hash IS NULL
                AND r.south <= b.north
                AND r.north >= b.south
                AND CASE
                    WHEN r.west > r.east AND b.west > b.east THEN true
                    WHEN r.west > r.east OR b.west > b.east THEN r.west <= b.east OR r.east >= b.west
                    ELSE r.west <= b.east AND r.east >= b.west
                END
            )
        )
    GROUP BY r.run_id, r.source, r.image_id
)
SELECT l.source, l.image_id, t.probability, t.best_rank
FROM latest l
JOIN touching t ON t.run_id = l.answer_run_id AND t.source = l.answer_source AND t.image_id = l.answer_image_id
ORDER BY t.probability DESC, l.source, l.image_id
