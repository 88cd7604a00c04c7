"""A synthetic world: small rendered scenes that look as the real maps say of a real position.

No photographs can be shipped. Demos, tests and benchmarks that need pictures therefore use these SYNTHETIC scenes. They
are no photographs, and no figure measured on them says how well real photographs can be located.

`maps.read` reads facts of real maps at positions, `draw.draw` draws scenes from them, `draw.semantic` gives the class
of each pixel, and `cues.bayes_error` says how well a cue can be used at best.
"""
