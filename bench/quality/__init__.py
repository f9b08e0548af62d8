"""What `bench_quality.py` measures with: seeded instances, a checker, CP-SAT's recorded answers, rival planners."""
