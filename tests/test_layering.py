"The number of a notebook is its rank: imports point downwards only, and everything promised is within reach of one star import"
import ast, json, re
from functools import reduce
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT/'nbs').glob('[0-9]*.ipynb'))
MATHS = 'panet channels attention streams pmnet'.split() # torch and nothing of the Learner; a callback lives beside the formula it carries (losses)

# ---- the promise: every name of the public face, in this one place --------------------------------------------------------------
PUBLIC = '''
synth_veri draw_vehicle
read_veri read_vehicleid read_occluded_veri read_folder read_table read_names read_veriwild read_vric read_cityflow examine ReIDInterpretation
ReIDDataLoaders ReIDDataLoaders.from_veri ReIDDataLoaders.from_vehicleid ReIDDataLoaders.from_folder ReIDDataLoaders.from_df
ReIDDataLoaders.show_batch PKSampler RandomErasing ColorPatchOcclusion
grabcut_mask grabcut_masks
PANet PANet.part_masks PANet.save_pretrained PANet.from_pretrained
channel_recalibration component_boxes cluster_boxes uniform_boxes PartMasks
MultiScaleAttention SqueezeExcitation ResidualAttention
PMNet PMNet.embed PMNet.save_pretrained PMNet.from_pretrained
part_transfer_loss UncertaintyWeights batch_hard_triplet
UncertaintyWeighting PartTransfer ReIDMetrics
rank_metrics RankMetrics evaluate_features vehicleid_metrics k_reciprocal_rerank
reid_learner ReIDLearner ReIDLearner.fit_two_stage ReIDLearner.evaluate ReIDLearner.show_rankings ReIDLearner.show_parts
ReIDLearner.show_attention ReIDLearner.save_pretrained ReIDLearner.from_pretrained ReIDLearner.gallery ReIDLearner.embed
Gallery Gallery.search export_onnx ReIDLearner.to_onnx
'''.split()
# ---------------------------------------------------------------------------------------------------------------------------------

def source(nb): return [''.join(c['source']) for c in json.loads(nb.read_text(encoding='utf-8'))['cells'] if c['cell_type']=='code']
def module(nb):
    m = re.search(r'^#\|\s*default_exp\s+(\S+)', '\n'.join(source(nb)), re.M)
    return m and m[1]
def number(nb): return int(re.match(r'\d+', nb.name)[0])
DEFERRED = {('metrics','monitor')} # `metrics.ReIDMetrics` is found when asked for, so that `metrics` alone loads no fastai
RANK = {m: number(nb) for nb in NOTEBOOKS if (m := module(nb))}
def imported(code):
    "(module of ours, names) of each import statement in `code`"
    for o in ast.walk(ast.parse(code)):
        if isinstance(o, ast.Import): yield from ((a.name.split('.')[1], []) for a in o.names if a.name.startswith('vehicle_reid.'))
        if not isinstance(o, ast.ImportFrom): continue
        names = [a.name for a in o.names]
        if o.module=='vehicle_reid' or (o.level and not o.module): yield from ((n, []) for n in names if n in RANK or n=='all')
        elif o.level or o.module.startswith('vehicle_reid.'): yield o.module.split('.')[-1], names

def test_every_notebook_has_a_number_of_its_own():
    nums = [number(nb) for nb in NOTEBOOKS]
    assert NOTEBOOKS and len(set(nums))==len(nums)
    for nb in NOTEBOOKS:
        if module(nb): assert nb.stem==f'{number(nb):02}_{module(nb)}', f'{nb.name} exports {module(nb)}'

@pytest.mark.parametrize('nb', NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_imports_only_lower_numbers(nb):
    for code in source(nb):
        for m,_ in imported(re.sub(r'^\s*[%!].*$', '', code, flags=re.M)):
            if m=='all': assert number(nb)>=53, f'{nb.name} imports vehicle_reid.all'
            else: assert m==module(nb) or RANK[m]<number(nb) or (module(nb),m) in DEFERRED, f'{nb.name} imports {m} ({RANK[m]})'

@pytest.mark.parametrize('mod', RANK)
def test_a_module_imports_only_lower_numbers_and_no_star(mod):
    code = (ROOT/f'vehicle_reid/{mod}.py').read_text(encoding='utf-8')
    for m,names in imported(code): assert RANK[m]<RANK[mod] or (mod,m) in DEFERRED, f'{mod} ({RANK[mod]}) imports {m} ({RANK[m]})'
    stars = [o.module for o in ast.walk(ast.parse(code)) if isinstance(o, ast.ImportFrom) and any(a.name=='*' for a in o.names)]
    assert not stars, f'{mod} imports * from {stars}: name what is needed'

@pytest.mark.parametrize('mod', MATHS)
def test_maths_stands_without_the_learner(mod):
    code = (ROOT/f'vehicle_reid/{mod}.py').read_text(encoding='utf-8')
    names = {(o.module or '').split('.')[0] for o in ast.walk(ast.parse(code)) if isinstance(o, ast.ImportFrom)}
    assert 'fastai' not in names

def test_all_lists_every_module_once_in_order():
    code = (ROOT/'vehicle_reid/all.py').read_text(encoding='utf-8')
    listed = re.findall(r'^from vehicle_reid\.(\w+) import \*$', code, re.M)
    assert listed==[m for m in RANK if m not in ('cli','words')] # words needs numba, an extra
    assert code.index('fastai.vision.all') < code.index('vehicle_reid.'+listed[0]), 'ours come last, so that ours stand'

@pytest.mark.parametrize('name', PUBLIC)
def test_every_promised_name_is_in_all(name):
    import vehicle_reid.all as everything
    obj = reduce(getattr, name.split('.'), everything)
    owner = getattr(everything, name.split('.')[0])
    assert callable(obj)
    assert owner.__module__.startswith('vehicle_reid.'), f'{name} is {owner.__module__}\'s, not ours'
