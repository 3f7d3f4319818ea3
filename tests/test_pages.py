"The small tools between notebooks and site: directives, links, anchors, README cells"
import json, sys
from pathlib import Path
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

def test_names_in_prose_become_links_and_nothing_else_does():
    syms,lookup = {'PANet': 0, 'Gallery.search': 0},{'Learner': 'https://docs.fast.ai/learner.html#learner'}.get
    md = '# `PANet`\n\n`PANet`, `Gallery.search()`, `Learner`, `x`, [`PANet`](a.ipynb)\n\n```python\n`PANet`\n```\n'
    assert pages.autolink(md, syms, lookup)==('# `PANet`\n\n[`PANet`](#api-panet), [`Gallery.search()`](#api-gallery-search), '
        '[`Learner`](https://docs.fast.ai/learner.html#learner), `x`, [`PANet`](a.ipynb)\n\n```python\n`PANet`\n```\n')

def test_patched_methods_carry_their_class():
    src = '@patch\n@torch.no_grad()\ndef embed(self:ReIDLearner, x): pass\n@patch(cls_method=True)\ndef load(cls:Gallery): pass\ndef f(): pass\nclass A: pass\nx = 1'
    assert list(pages.defined(src))==['ReIDLearner.embed', 'Gallery.load', 'f', 'A']

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
