"""Force instead of thought: what nobody would have written down as a test.

    python -m fuzz.images 300      coverage-guided fuzzing of the pictures' preprocessing, for 300 seconds
    python -m fuzz.texts 300       the same for texts
    python -m fuzz.requests        10,000 mutated requests to a gateway
    python -m fuzz.soak 600        good and hostile traffic for 600 seconds, while the gateway's memory is watched

`--help` tells of each one's flags. All start from inputs that they make themselves. The first two keep what reached new
code in `corpus/` and what went wrong in `findings/`; a finding is run again with `python -m fuzz.images FILE`.
"""
