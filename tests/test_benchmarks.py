"Every benchmark runs, on problems of no size: what it claims is measured by hand, what it compares is checked here"
import subprocess, sys
from pathlib import Path
import pytest

BENCH = Path(__file__).resolve().parents[1]/'benchmarks'
SCRIPTS = sorted(p.stem for p in BENCH.glob('[a-z]*.py'))

@pytest.mark.parametrize('script', SCRIPTS)
def test_ways_agree_on_a_tiny_problem(script):
    code = f"""
import sys; sys.path.insert(0, {str(BENCH)!r}); sys.argv[0] = {str(BENCH/(script+'.py'))!r}
import _bench, runpy
def tiny(*cases, growth=None):
    assert cases
    for c in cases:
        ways = {{n: f for n,f in c.ways.items() if f}}
        results = {{n: f(c.make('tiny')) for n,f in ways.items()}}
        if c.agree and set(ways)==set(c.ways): print(c.agree(results))
        assert next(iter(ways)).startswith('ours') and c.against in c.ways
_bench.main = tiny
runpy.run_path(sys.argv[0], run_name='__main__')"""
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert not done.returncode, done.stderr[-3000:]
