"Alternatives timed in one run: rounds interleaved, medians and spread, peak memory of fresh processes, results compared"
import argparse, gc, importlib.util, json, os, platform, resource, statistics, subprocess, sys, time, types
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Callable
from fastprogress import fastprogress

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT/'_build/peers' # `make peers`

fastprogress.NO_BAR = True # a bar costs time and hides the numbers

@dataclass
class Case:
    "One claim: `ways` do the same work on what `make` gives; the first one is ours"
    name: str
    make: Callable # scale ('full', 'quick' or 'tiny') → data
    ways: dict # name → function of the data
    against: str # the way that ratios are taken of
    agree: Callable = None # dict of results → a line that says in what they agree, or an AssertionError
    floor: str = None # the way that cannot be beaten
    slow: tuple = () # ways timed once with --quick
    full_only: tuple = () # ways left out with --quick
    memory: bool|str = True # peaks too; 'full': not with --quick

STATUS = Path('/proc/self/status') # Linux; elsewhere, and in ru_maxrss, a peak cannot be forgotten

def _forget():
    "Let the peak begin at what is held now"
    gc.collect()
    if STATUS.exists(): Path('/proc/self/clear_refs').write_text('5')

def _peak():
    "MiB that this program ever held, or since `_forget`"
    if STATUS.exists(): return int(STATUS.read_text().split('VmHWM:')[1].split()[0])/1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/(2**20 if sys.platform=='darwin' else 1024)

def _memory_of(script, case, way, scale):
    "Peak MiB of one way in a process of its own, beyond its data and what a tiny problem needs"
    done = subprocess.run([sys.executable, script, '--memory', case, way, scale], capture_output=True, text=True)
    if done.returncode: raise RuntimeError(f'{case}, {way}: {done.stderr[-2000:]}')
    return float(done.stdout.split()[-1])

def _time(f, data):
    start = time.perf_counter()
    out = f(data)
    return out, time.perf_counter()-start

def run(case, script, quick, rounds):
    start = time.perf_counter()
    scale = 'quick' if quick else 'full'
    ways = {n: f for n,f in case.ways.items() if f and not (quick and n in case.full_only)}
    data,tiny = case.make(scale),case.make('tiny')
    for n,f in ways.items(): f(tiny)
    times,results = {n: [] for n in ways},{}
    for r in range(rounds):
        for n,f in ways.items():
            if r and quick and n in case.slow: continue
            out,t = _time(f, data)
            times[n].append(t)
            if not r: results[n] = out
    agreed = case.agree(results) if case.agree else None
    del results,out
    memory = {n: _memory_of(script, case.name, n, scale) for n in ways} if case.memory and not (quick and case.memory=='full') else {}
    ours = next(iter(ways))
    ratios = {n: [a/b for a,b in zip(times[ours], times[n] if len(times[n])>1 else times[n]*rounds)] for n in ways if n!=ours}
    line = dict(case=case.name, scale=scale, rounds=rounds, ran={n: len(t) for n,t in times.items()}, seconds={n: statistics.median(t) for n,t in times.items()},
        spread={n: [min(t),max(t)] for n,t in times.items()}, ratio={n: statistics.median(r) for n,r in ratios.items()}, ratio_spread={n: [min(r),max(r)] for n,r in ratios.items()}, mib=memory, against=case.against, floor=case.floor, agree=agreed, took=time.perf_counter()-start)
    show(line, ours)
    return line

def show(o, ours):
    print(f"\n{o['case']} ({o['scale']}, {o['rounds']} rounds)" + (f": {o['agree']}" if o['agree'] else ''))
    for n,s in o['seconds'].items():
        lo,hi = o['spread'][n]
        ratio = '' if n==ours else f"ours takes {o['ratio'][n]:.3f}x of it ({o['ratio_spread'][n][0]:.3f} to {o['ratio_spread'][n][1]:.3f})" + (', the floor' if n==o['floor'] else '')
        print(f"  {n:28s} {s:9.4f} s  ({lo:.4f} to {hi:.4f})" + (f"  {o['mib'][n]:8.1f} MiB" if n in o['mib'] else '') + f'  {ratio}')
    if o['mib'].get(o['against'], 0)>0: print(f"  memory: {o['mib'][ours]/o['mib'][o['against']]:.3f}x of {o['against']}")

def machine():
    import numpy, torch
    about = dict(cpu=platform.processor() or platform.machine(), cores=os.cpu_count(), threads=torch.get_num_threads(), python=platform.python_version(), numpy=numpy.__version__, torch=torch.__version__)
    if torch.cuda.is_available(): about['gpu'] = torch.cuda.get_device_name()
    for p in ('fastreid','open-metric-learning','pytorch-metric-learning'):
        for d in PEERS.glob(f"{p.replace('-', '_')}-*.dist-info"): about[p] = d.name.split('-')[1].removesuffix('.dist')
    for p in ('scikit-image','scikit-learn','opencv-python','opencv-python-headless','timm','fastai'):
        try: about[p] = version(p)
        except Exception: pass
    return about

def main(*cases, growth=None):
    "Command line of a script: [--quick] [--rounds N] [--json FILE] [--growth]"
    if sys.argv[1:2]==['--memory']:
        case = next(c for c in cases if c.name==sys.argv[2]); f = case.ways[sys.argv[3]]
        f(case.make('tiny')); data = case.make(sys.argv[4])
        _forget(); before = _peak(); f(data); print(_peak()-before); return
    ap = argparse.ArgumentParser(description=(sys.modules['__main__'].__doc__ or '').strip())
    ap.add_argument('--quick', action='store_true', help='smaller problems, seconds each')
    ap.add_argument('--rounds', type=int, default=5)
    ap.add_argument('--json', help='append a line for each case to this file')
    ap.add_argument('--only', help='cases whose name holds this')
    if growth: ap.add_argument('--growth', action='store_true', help='how cost grows, instead')
    a = ap.parse_args()
    script = str(Path(sys.argv[0]).resolve())
    about = dict(script=Path(script).name, date=time.strftime('%Y-%m-%d'), machine=machine())
    if growth and a.growth: lines = growth(a.quick)
    else: lines = [run(c, script, a.quick, a.rounds) for c in cases if not a.only or a.only in c.name]
    if a.json:
        with open(a.json, 'a', encoding='utf-8') as f:
            for o in lines: f.write(json.dumps({**about, **o})+'\n')

def once(name, f, data, calls=5, **facts):
    "One point of a growth curve: median of `calls` after a first one, whose peak memory beyond the data counts; a single call if 0"
    _forget(); before = _peak()
    t = _time(f, data)[1]
    mib = _peak()-before
    if calls: t = statistics.median(_time(f, data)[1] for _ in range(calls))
    print(f'  {name:28s} {t:9.4f} s  {mib:8.1f} MiB  {facts}', flush=True)
    return dict(case=name, seconds=t, mib=mib, calls=calls, **facts)

# ---- peers, loaded file by file: their packages ask for versions of torch and numpy that exclude each other ---------------------
def peer(path, name):
    "Module of a peer from its file, or None if `make peers` has not been run"
    file = PEERS/path
    if not file.exists(): print(f'({path} is not there: `make peers` fetches it)', file=sys.stderr); return None
    spec = importlib.util.spec_from_file_location(name, file)
    m = importlib.util.module_from_spec(spec); spec.loader.exec_module(m)
    return m

def namespace(name):
    "Packages of a peer whose `__init__` would import far more than is needed"
    m = types.ModuleType(name); m.__path__ = [str(PEERS/name.replace('.', '/'))]
    sys.modules[name] = m

def fastreid_cython():
    "FastReID's compiled `evaluate_cy`, built on first use as its Makefile does"
    src,lib = PEERS/'fastreid/evaluation/rank_cylib/rank_cy.pyx',PEERS/'cython'
    if not src.exists(): print('(FastReID is not there: `make peers` fetches it)', file=sys.stderr); return None
    if not list(lib.glob('rank_cy*.so')):
        lib.mkdir(exist_ok=True); (lib/'rank_cy.pyx').write_text(src.read_text())
        (lib/'setup.py').write_text("import numpy as np\nfrom Cython.Build import cythonize\nfrom setuptools import Extension, setup\n"
            "setup(ext_modules=cythonize([Extension('rank_cy', ['rank_cy.pyx'], include_dirs=[np.get_include()])]))\n")
        subprocess.run([sys.executable, 'setup.py', '-q', 'build_ext', '--inplace'], cwd=lib, check=True, capture_output=True)
    sys.path.insert(0, str(lib))
    import rank_cy
    return rank_cy.evaluate_cy
