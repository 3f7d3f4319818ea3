"settings.ini is the one home of the package's facts: what stands twice must agree, and what is required must be what is imported"
import ast, os, re, stat, sys
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path
import pytest
from packaging.requirements import Requirement
if sys.version_info>=(3,11): import tomllib
else: import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
META = ConfigParser(delimiters=['='])
META.read(ROOT/'settings.ini', encoding='utf-8')
META = META['DEFAULT']
MODULES = sorted((ROOT/'vehicle_reid').glob('*.py'))
# distribution → the name it is imported by, where they differ
IMPORTED = {'opencv-python-headless': 'cv2', 'scikit-learn': 'sklearn', 'pillow': 'PIL'}
WITH_FASTAI = {'fastcore', 'fastprogress', 'fasttransform', 'scipy', 'packaging', 'yaml', 'requests'} # fastai requires these itself

FAST = {'words'} # modules of the optional extra `fast`

def requirements(key='requirements'): return [Requirement(o) for o in META[key].split()]
def imports(path):
    for o in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(o, ast.Import): yield from (a.name.split('.')[0] for a in o.names)
        elif isinstance(o, ast.ImportFrom) and not o.level: yield o.module.split('.')[0]

def test_name_and_version_agree():
    import vehicle_reid
    project = tomllib.loads((ROOT/'pyproject.toml').read_text(encoding='utf-8'))['project']
    assert project['name']==META['lib_name']==vehicle_reid.__name__
    assert META['version']==vehicle_reid.__version__
    assert 'version' in project['dynamic'] and 'dependencies' in project['dynamic'], 'they belong to settings.ini'

def test_description_is_the_books_promise():
    import json
    first = ''.join(json.loads((ROOT/'nbs/index.ipynb').read_text(encoding='utf-8'))['cells'][0]['source'])
    promise = re.search(r'^> (.+)', first, re.M)
    assert promise, 'the first cell of index.ipynb is `# title` and `> one line`'
    assert promise[1].strip().rstrip('.')==META['description'].rstrip('.')

@pytest.mark.parametrize('key', ['requirements', 'fast_requirements', 'onnx_requirements', 'dev_requirements'])
def test_requirements_parse(key):
    rs = requirements(key)
    assert len({r.name for r in rs})==len(rs), 'one is named twice'
    for r in rs:
        assert {s.operator for s in r.specifier} <= {'>='}, f'{r}: lower bounds only, no machine\'s pins'
        if key=='requirements' and r.name!='matplotlib': assert r.specifier, f'{r} has no lower bound'

def test_installed_versions_satisfy_the_bounds():
    from importlib.metadata import version, PackageNotFoundError
    for r in requirements():
        try: v = version(r.name)
        except PackageNotFoundError: continue # e.g. another build of OpenCV
        assert r.specifier.contains(v, prereleases=True), f'{r} but {v} is installed'

def test_what_is_imported_is_required_and_the_reverse():
    names,fast,onnx = ({IMPORTED.get(r.name, r.name) for r in requirements(k)} for k in ('requirements','fast_requirements','onnx_requirements'))
    used = {o for p in MODULES if p.stem not in FAST for o in imports(p)} - set(sys.stdlib_module_names) - {'vehicle_reid'} - onnx
    assert onnx <= set(imports(ROOT/'vehicle_reid/export.py'))
    assert fast <= {o for m in FAST for o in imports(ROOT/f'vehicle_reid/{m}.py')} <= fast|names
    assert used <= names|WITH_FASTAI, f'imported, not in settings.ini: {used-names-WITH_FASTAI}'
    assert names <= used|{'torchvision'}, f'in settings.ini, never imported: {names-used}' # torchvision: timm and fastai need the build that fits torch

@pytest.mark.parametrize('path', MODULES, ids=lambda p: p.name)
def test_syntax_of_the_oldest_python(path):
    v = tuple(map(int, META['min_python'].split('.')))
    ast.parse(path.read_text(encoding='utf-8'), feature_version=v)

def test_console_script_is_callable():
    mod,func = META['console_scripts'].split('=')[1].split(':')
    assert callable(getattr(import_module(mod), func))

def test_licence_is_the_whole_text():
    t = (ROOT/'LICENSE').read_text(encoding='utf-8')
    assert META['license']=='Apache-2.0'
    for o in ('Version 2.0, January 2004', 'TERMS AND CONDITIONS', '9. Accepting Warranty', 'END OF TERMS AND CONDITIONS'): assert o in t

def test_ci_runs_the_readmes_command():
    run = ROOT/'.ci/run'
    assert os.stat(run).st_mode & stat.S_IXUSR
    assert 'make test' in run.read_text()
    readme = (ROOT/'README.md').read_text(encoding='utf-8')
    for o in ('make demo', 'make test', 'pip install'): assert o in readme
