"What is generated is what the sources give, and what is saved tells nothing of the machine it was saved on"
import json, os, re, shutil, subprocess, sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '_' not in [o[0] for o in p.relative_to(ROOT).parts] and '.ipynb_checkpoints' not in p.parts)
MACHINE = re.compile(r'(?<![\w./:])(?:/(?:tmp|home|root|work|Users|mnt|opt)/|[A-Z]:\\\\)|site-packages')
spec = spec_from_file_location('pages', ROOT/'nbs/_web/pages.py')
pages = module_from_spec(spec)
spec.loader.exec_module(pages)

def text(o): return o if isinstance(o, str) else ''.join(o)
def cells(nb): return json.loads(nb.read_text(encoding='utf-8'))['cells']
def saved(nb):
    "Every text a notebook's outputs hold"
    for c in cells(nb):
        for o in c.get('outputs', []):
            yield from (text(v) for k,v in o.get('data', {}).items() if not k.startswith('image/') and isinstance(v, (str,list)))
            yield text(o.get('text', ''))
def tree(folder): return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob('*') if p.is_file() and '__pycache__' not in p.parts}

@pytest.fixture(scope='module')
def regenerated(tmp_path_factory):
    "(files before, files after) nbdev-export and nbdev-clean in a copy of the tree"
    copy = tmp_path_factory.mktemp('copy')/'vehicle_reid' # nbdev wants the folder's name for nothing, people do
    ignore = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints', 'models')
    for d in ('nbs', 'vehicle_reid'): shutil.copytree(ROOT/d, copy/d, ignore=ignore)
    for f in ('settings.ini', 'setup.py', 'pyproject.toml', 'README.md'): shutil.copy(ROOT/f, copy/f)
    before = tree(copy)
    env = {k:v for k,v in os.environ.items() if k!='IN_TEST'}
    code = 'from nbdev.doclinks import nbdev_export; from nbdev.clean import nbdev_clean; nbdev_export(); nbdev_clean()'
    subprocess.run([sys.executable, '-c', code], cwd=copy, env=env, check=True)
    return before, tree(copy)

def test_export_and_clean_leave_no_diff(regenerated):
    before,after = regenerated
    assert before.keys()==after.keys()
    assert not [k for k in before if before[k]!=after[k]]

def test_all_is_left_alone(regenerated):
    before,after = regenerated
    assert after['vehicle_reid/all.py']==before['vehicle_reid/all.py']

def test_readme_is_what_the_index_gives():
    want = pages.readme(ROOT)
    for name,data in want.items():
        assert (ROOT/name).read_bytes()==data, f'{name} is stale: run `make readme`'
    assert {p.relative_to(ROOT).as_posix() for p in (ROOT/'nbs/images').glob('readme_*')} <= want.keys(), 'a picture no longer used'

@pytest.mark.parametrize('nb', NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_tells_nothing_of_its_machine(nb):
    for t in [text(c['source']) for c in cells(nb)]+list(saved(nb)):
        assert not MACHINE.search(t), f'{nb.name}: {MACHINE.search(t)[0]} in {t[:300]!r}'
        assert str(Path.home())=='/' or str(Path.home())+'/' not in t

@pytest.mark.parametrize('nb', NOTEBOOKS, ids=lambda p: p.stem)
def test_saved_outputs_are_clean(nb):
    for c in cells(nb):
        for o in c.get('outputs', []):
            assert o['output_type']!='error', f'{nb.name}: {o.get("evalue")}'
            assert o.get('name')!='stderr', f'{nb.name}: {text(o["text"])[:300]}'
    for t in saved(nb): assert not re.search(r'\w*Warning:|Traceback \(most|\x1b\[', t), f'{nb.name}: {t[:300]}'

@pytest.mark.parametrize('what', [rf'\tag{{{n}}}' for n in range(1,9)]+['Algorithm 1'])
def test_every_equation_has_its_page(what):
    prose = [nb.name for nb in NOTEBOOKS if any(what in text(c['source']) for c in cells(nb) if c['cell_type']=='markdown')]
    assert prose, f'no notebook names {what}'

@pytest.mark.parametrize('nb', NOTEBOOKS, ids=lambda p: p.stem)
def test_links_between_pages_lead_somewhere(nb):
    for c in cells(nb):
        if c['cell_type']!='markdown': continue
        for link in re.findall(r'\]\(([^)#\s]+)', re.sub(r'```.*?```|`[^`]*`|\$[^$]*\$', '', text(c['source']), flags=re.S)):
            if not re.match(r'[a-z]+:', link): assert (nb.parent/link).exists(), f'{nb.name}: {link}'
