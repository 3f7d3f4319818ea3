"The small tools between notebooks and site: directives, links, anchors, README cells"
import collections, enum, json, sys
from pathlib import Path
from typing import NamedTuple
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]/'nbs/_web'))
import pages

def notebook(folder, *cells):
    "A notebook of (source, outputs) or markdown strings"
    (folder/'nbs').mkdir(exist_ok=True)
    cs = [dict(cell_type='markdown', source=c) if isinstance(c, str) else dict(cell_type='code', source=c[0], outputs=c[1]) for c in cells]
    (folder/'nbs/index.ipynb').write_text(json.dumps(dict(cells=cs)), encoding='utf-8')

def test_directives_are_split_off():
    assert pages.split_directives('#| export\n#| echo: false\nx = 1 #| not one\n')==({'export': '', 'echo': 'false'}, 'x = 1 #| not one')

@pytest.mark.parametrize('src,want', [
    ('see [a](01_a.ipynb#b)', 'see [a](nbs/01_a.ipynb#b)'), ('[a](https://x.org/y)', '[a](https://x.org/y)'),
    ('[a](#here)', '[a](#here)'), ('<img src="images/x.png" width="3">', '<img src="nbs/images/x.png" width="3">')])
def test_relative_links_move(src, want): assert pages.relink(src, lambda p: 'nbs/'+p)==want

def symbol(name, module='m', page='01_m', source='', anchor=None): return pages.Symbol(name, module, 'What it is', page, source, anchor or pages._anchor(name))

def test_names_in_prose_become_links_and_nothing_else_does():
    syms,lookup = [symbol('PANet'), symbol('Gallery.search')],{'Learner': 'https://docs.fast.ai/learner.html#learner'}.get
    md = '# `PANet`\n\n`PANet`, `Gallery.search()`, `Learner`, `x`, [`PANet`](a.ipynb)\n\n```python\n`PANet`\n```\n'
    assert pages.autolink(md, syms, lookup)==('# `PANet`\n\n[`PANet`](#api-panet), [`Gallery.search()`](#api-gallery-search), '
        '[`Learner`](https://docs.fast.ai/learner.html#learner), `x`, [`PANet`](a.ipynb)\n\n```python\n`PANet`\n```\n')

def test_patched_methods_carry_their_class():
    src = '@patch\n@torch.no_grad()\ndef embed(self:ReIDLearner, x): pass\n@patch(cls_method=True)\ndef load(cls:Gallery): pass\ndef f(): pass\nclass A: pass\nx = 1'
    assert [n for n,_ in pages.defined(src)]==['ReIDLearner.embed', 'Gallery.load', 'f', 'A']

SYMS = [symbol('train', 'cli', '53_cli'), symbol('search', 'cli', '53_cli', anchor='api-cli-search'), symbol('search', 'words', '07_words', anchor='api-words-search'), symbol('Gallery', 'gallery', '51_gallery', 'self.features = 1'),
    symbol('Gallery.search', 'gallery', '51_gallery'), symbol('PANet.part_masks', 'parts', '13_parts'), symbol('part_masks', 'parts', '13_parts'), symbol('ReIDLearner.show_batch', 'learner', '50_learner'),
    symbol('ReIDDataLoaders.show_batch', 'data', '03_data')]
FASTAI = {o: f'https://docs.fast.ai/{o}' for o in ('encodes','DataLoader','Learner.export','export','show_batch','Resize')}

@pytest.mark.parametrize('name,here,want', [
    ('train', '02_datasets', None), ('train', '53_cli', '#api-train'), ('search', '03_data', None), ('search', '07_words', '#api-words-search'), ('search', '53_cli', '#api-cli-search'), ('search', '51_gallery', '#api-gallery-search'),
    ('words.search', None, '#api-words-search'), ('gal.search', None, '#api-gallery-search'), ('gal.features', None, '#api-gallery'), ('panet.part_masks', '11_panet', '#api-panet-part-masks'), ('part_masks', '67_pytorch', '#api-part-masks'),
    ('dls.show_batch', '60_first', '#api-reiddataloaders-show-batch'), ('show_batch', '60_first', None), ('show_batch', '03_data', '#api-reiddataloaders-show-batch'), ('encodes', '03_data', None), ('export', '50_learner', None),
    ('learn.export', '50_learner', 'https://docs.fast.ai/Learner.export'), ('DataLoader', '67_pytorch', None), ('Resize', '23_export', None), ('x', None, None)])
def test_a_name_leads_to_the_one_thing_it_means_or_nowhere(name, here, want): assert pages.address(name, SYMS, FASTAI.get, here)==want

@pytest.mark.parametrize('said,want', [('(?P<vid>\\d+)', '(?P\\<vid>\\\\d+)'), ('id_*, tri_*', 'id\\_\\*, tri\\_\\*'), ('of `a_b*<c>`, $1', 'of `a_b*<c>`, \\$1'), ('k -> [0,1]', 'k -> \\[0,1\\]')])
def test_docstrings_are_shown_as_typed(said, want): assert pages._prose(said)==want

class Pair(NamedTuple):
    a:int # the one
    b:float=1/12
class Mode(enum.Enum): FAST = 'fast'
class Inherits(collections.OrderedDict): pass
class Ours:
    def __init__(self, x, *rest, mode=Mode.FAST, **kwargs): pass
Ours.__module__ = 'vehicle_reid.x'
def keywords(a, *, b=(1/3,), c=[.5], d=int): pass
def many(first_argument, second_argument=1, third_argument=2, fourth_argument=3, fifth=4): pass

@pytest.mark.parametrize('obj,want', [(Pair, 'f(a, b=0.0833)'), (Ours, 'f(x, *rest, mode=Mode.FAST, **kwargs)'), (keywords, 'f(a, *, b=(0.333,), c=[0.5], d=int)'), (Inherits, 'class f(OrderedDict)'), (property(keywords), 'f'),
    (many, 'f(\n    first_argument,\n    second_argument=1,\n    third_argument=2,\n    fourth_argument=3,\n    fifth=4\n)')])
def test_a_signature_is_what_one_types(obj, want): assert pages.signature('f', obj, pages.arguments(obj))==want

def test_comments_of_fields_are_their_meaning(): assert pages.arguments(Pair, 'class Pair(NamedTuple):\n    a:int # the one\n    b:float=1/12\n')[0]==('a', None, 'the one')

def test_imports_and_folded_code_say_which_they_are():
    folded,imports,plain = (pages.code_cell(d, src, [])['metadata'] for d,src in (({'code-fold': ''}, 'x = 1'), ({}, 'import x'), ({}, 'x = 1')))
    assert folded=={'tags': ['hide-input']} and imports['mystnb']['code_prompt_show']=='Imports' and plain=={'tags': []}

def test_an_intro_of_the_docstring_leads_to_its_example(tmp_path):
    notebook(tmp_path, '# T', '#| export\nWhat it does:', ('#| export\nimport x', []), ('#| exportd\nx.do()', []))
    nb = pages.page(tmp_path/'nbs/index.ipynb', [], {}.get)
    assert nb['cells'][1]['source']=='What it does ([example](#api-example-index)).' and [c['source'].strip() for c in nb['cells'][3:]]==['(api-example-index)=', 'x.do()']

def test_short_cells_of_tables_are_marked():
    html = '<td>42.5 ± 0.5</td><th>2026-11-23</th><td>a sentence that is longer than that</td>'
    out = pages.code_cell({}, 'x', [dict(output_type='display_data', data={'text/html': [html]})])['outputs'][0]['data']['text/html']
    assert out=='<td class="short">42.5 ± 0.5</td><th class="short">2026-11-23</th><td>a sentence that is longer than that</td>'

def test_readme_keeps_what_a_reader_of_github_can_see(tmp_path):
    png = dict(data={'image/png': 'iVBORw0KGgo=', 'text/plain': '<Figure>'})
    html = dict(data={'text/html': '<table>', 'text/plain': 'a b\n1 2'})
    notebook(tmp_path, '# T\n\n[x](02_x.ipynb) [c](../CONTRIBUTING.md)', ('#| hide\nsecret', []), ('1+1', [html]), ('#| echo: false\nplot()', [png]), ('print(1)', [dict(name='stdout', text=['1\n'])]))
    files = pages.readme(tmp_path)
    md = files['README.md'].decode()
    assert '[x](nbs/02_x.ipynb) [c](CONTRIBUTING.md)' in md and 'secret' not in md and 'plot()' not in md and '<table>' not in md
    assert '```python\n1+1\n```\n\n```text\na b\n1 2\n```' in md and '```text\n1\n```' in md
    assert '![](nbs/images/readme_1.png)' in md and files['nbs/images/readme_1.png']==b'\x89PNG\r\n\x1a\n'
    (tmp_path/'nbs/images').mkdir()
    (tmp_path/'nbs/images/readme_9.jpg').write_bytes(b'old')
    pages.write_readme(tmp_path)
    assert [p.name for p in (tmp_path/'nbs/images').iterdir()]==['readme_1.png'] and (tmp_path/'README.md').read_bytes()==files['README.md']
