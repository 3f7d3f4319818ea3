"Turns notebooks into what Sphinx reads (`_build/pages`) and, with `--readme`, nbs/index.ipynb into README.md. Nothing is executed: outputs are those saved."
import argparse, ast, base64, importlib, inspect, json, posixpath, re, shutil
from collections import namedtuple
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = [(7, 'What is a vehicle image'), (20, 'Where are the parts'), (30, 'What do they look like'), (40, 'What is learned'),
         (50, 'How is it judged'), (60, 'All together'), (1000, 'Tutorials')] # numbers below, title (STYLE: parts A to F)
EXTRA = ['CONTRIBUTING.md', 'CHANGELOG.md'] # top-level pages that join the site
NOTE = '<!-- Written by `make readme` from nbs/index.ipynb: edit there. -->\n'
_directive,_fence = re.compile(r'#\|\s*(.+)'), re.compile(r'(^```.*?^```|^#.*?$|^\$\$.*?\$\$$|`{2,}.*?`{2,}|\[[^\]]*\]\([^)]*\))', re.M|re.S)
_link = re.compile(r'(\]\(|\bsrc=")([^)"\s#]+)(?=[)"\s#])')

def text(o):
    "Notebook JSON keeps text as one string or as a list of lines"
    return o if isinstance(o, str) else ''.join(o)

def notebooks(root):
    "Every notebook of the book, in reading order"
    return sorted(p for p in (root/'nbs').rglob('*.ipynb') if not any(o.startswith(('_','.')) for o in p.relative_to(root).parts))

def split_directives(source):
    "Source → (directives as {name: value}, source without them)"
    lines,found = source.splitlines(keepends=True),{}
    while lines and (m := _directive.match(lines[0])):
        k,_,v = m[1].strip().replace(':', ' ').partition(' ')
        found[k] = v.strip()
        lines.pop(0)
    return found, ''.join(lines).strip('\n')

def cells(path):
    "The cells a reader sees, as (type, directives, source, outputs)"
    for c in json.loads(path.read_text(encoding='utf-8'))['cells']:
        d,src = split_directives(text(c['source']))
        if c['cell_type']=='raw' or 'hide' in d or d.get('include')=='false' or not src: continue
        yield c['cell_type'], d, src, ([] if d.get('output')=='false' else c.get('outputs', []))

# --- README
def relink(md, move):
    "Apply `move` to each relative link or image of `md`"
    def _sub(m): return m[0] if re.match(r'[a-z]+:|/|#', m[2]) else m[1] + move(m[2])
    return _link.sub(_sub, md)

def readme(root=ROOT):
    "What README.md and its pictures have to be: {path from root: bytes}"
    md,files = [NOTE],{}
    for kind,d,src,outs in cells(root/'nbs/index.ipynb'):
        if kind=='markdown': md.append(relink(src, lambda p: posixpath.normpath(posixpath.join('nbs', p))))
        elif d.get('echo')!='false': md.append(f'```python\n{src}\n```')
        for o in outs:
            data = {k:text(v) for k,v in (o.get('data') or {'text/plain': o.get('text', '')}).items() if isinstance(v, (str,list))}
            pic = next((k for k in ('image/jpeg','image/png') if k in data), None)
            if pic:
                name = f"nbs/images/readme_{len(files)+1}.{pic[6:].replace('jpeg', 'jpg')}"
                files[name] = base64.b64decode(data[pic])
                md.append(f'![]({name})')
            elif 'text/markdown' in data: md.append(data['text/markdown'].strip())
            elif (t := data.get('text/plain', '').rstrip()): md.append(f'```text\n{t}\n```')
    return {'README.md': ('\n\n'.join(md)+'\n').encode(), **files}

def write_readme(root=ROOT):
    "Write README.md; pictures of an older one go"
    files = readme(root)
    for p in (root/'nbs/images').glob('readme_*'):
        if p.relative_to(root).as_posix() not in files: p.unlink()
    for name,data in files.items():
        (root/name).parent.mkdir(parents=True, exist_ok=True)
        (root/name).write_bytes(data)

# --- site
def slug(title):
    "The anchor of a heading: `vehicle_reid` → vehicle_reid, 'Why parts?' → why-parts"
    return re.sub(r'[^\w.\- ]', '', title.lower()).strip().replace(' ', '-')

def anchor(name): return 'api-' + name.lower().replace('_', '-').replace('.', '-')

def defined(src):
    "Names of functions and classes a cell defines; a patched method as Class.method"
    for o in ast.parse(re.sub(r'^[%!].*$', '', src, flags=re.M)).body:
        if not isinstance(o, (ast.FunctionDef, ast.ClassDef)): continue
        patch = any(getattr(d, 'id', getattr(getattr(d, 'func', None), 'id', '')).startswith('patch') for d in o.decorator_list)
        owner = getattr(o.args.args[0].annotation, 'id', None) if patch and o.args.args else None
        yield f'{owner}.{o.name}' if owner else o.name

Symbol = namedtuple('Symbol', 'module doc page source') # source: the cell that defines it

def module_of(path):
    "The module that a notebook exports, or None"
    src = '\n'.join(text(c['source']) for c in json.loads(path.read_text(encoding='utf-8'))['cells'])
    return (m := re.search(r'^#\|\s*default_exp\s+(\S+)', src, re.M)) and m[1]

def symbols(root):
    "{public name: `Symbol`} of all notebooks, in reading order"
    res = {}
    for path in notebooks(root):
        if not (mod := module_of(path)): continue
        for kind,d,src,_ in cells(path):
            if kind!='code' or not {'export','exports'} & set(d): continue
            docs = {o.name: (ast.get_docstring(o) or '') for o in ast.parse(src).body if isinstance(o, (ast.FunctionDef, ast.ClassDef))}
            for n in defined(src):
                if not n.startswith('_') and '._' not in n: res[n] = Symbol(mod, docs[n.split('.')[-1]].split('\n')[0], path.stem, src)
    return res

OWNERS = dict(learn='ReIDLearner', dls='ReIDDataLoaders', gallery='Gallery') # what the book calls its objects

def public(name, syms):
    "The public name that `name` stands for in prose: itself, a method by its object (`learn.evaluate`) or alone, if only one class has it; else None"
    if name in syms: return name
    owner,_,last = name.rpartition('.')
    if owner: return o if (o := f'{OWNERS.get(owner, owner)}.{last}') in syms else None
    mine = [o for o in syms if o.endswith('.'+name)]
    return mine[0] if len(mine)==1 else None

def autolink(md, syms, lookup):
    "`name` or `name(...)` in prose → a link to its definition, here or at docs.fast.ai; fences, headings, equations and links stay as they are"
    def _one(m):
        if name := public(m[1], syms): return f'[{m[0]}](#{anchor(name)})'
        url = len(m[1])>2 and lookup(m[1])
        return f'[{m[0]}]({url})' if url and url.startswith('http') else m[0]
    parts = _fence.split(md)
    parts[::2] = [re.sub(r'(?<!`)`([\w.]+)(?:\([^`]*\))?`(?!`)', _one, o) for o in parts[::2]]
    return ''.join(parts)

def page(path, syms, lookup):
    "A notebook as MyST-NB wants it"
    res = []
    def _md(s): res.append(dict(cell_type='markdown', metadata={}, source=s))
    for kind,d,src,outs in cells(path):
        if kind=='markdown':
            _md(relink(autolink(src, syms, lookup), lambda p: p.removeprefix('../') if p.removeprefix('../') in EXTRA else p))
            continue
        if {'export','exports'} & set(d): _md('\n'.join(f'({anchor(n)})=' for n in defined(src) if n in syms)+'\n')
        only_imports = all(isinstance(o, (ast.Import, ast.ImportFrom)) for o in ast.parse(re.sub(r'^[%!].*$', 'pass', src, flags=re.M)).body)
        tags = ['remove-input'] if d.get('echo')=='false' else ['hide-input'] if only_imports or 'code-fold' in d else []
        res.append(dict(cell_type='code', execution_count=None, metadata={'tags': tags}, source=src, outputs=outs))
    for i,c in enumerate(res): c['id'] = f'c{i}'
    meta = dict(kernelspec=dict(display_name='python3', language='python', name='python3'), language_info=dict(name='python'))
    return dict(cells=[c for c in res if c['source'].strip()], metadata=meta, nbformat=4, nbformat_minor=5)

def _cell(s): return str(s).replace('|', '\\|').replace('\n', ' ')

def _default(v):
    "A default as one would type it"
    if isinstance(v, type) or inspect.isroutine(v): return v.__name__
    return re.sub(r' at 0x[0-9a-f]+', '', repr(v))

def arguments(obj):
    "[(name, default or None, meaning)] of a function, or of a class's `__init__`, from its docments"
    from fastcore.docments import docments
    try: docs = docments(obj, full=True)
    except (TypeError, ValueError): return []
    return [(n, None if o.default is inspect.Parameter.empty else _default(o.default), o.docment or '') for n,o in docs.items() if n not in ('self','cls','return')]

def entry(name, sym):
    "A name's part of the reference: signature, what it does, a table of its arguments"
    obj = importlib.import_module(f'vehicle_reid.{sym.module}')
    for o in name.split('.'): obj = inspect.getattr_static(obj, o) if not hasattr(obj, o) else getattr(obj, o)
    args = [] if isinstance(obj, property) else arguments(obj)
    call = '' if isinstance(obj, property) else '(' + ', '.join(n if v is None else f'{n}={v}' for n,v,_ in args) + ')'
    md = [f'## `{name}`', f'```python\n{name}{call}\n```', f'{sym.doc} · [told here](#{anchor(name)})']
    if any(doc for *_,doc in args):
        md.append('| argument | default | |\n|---|---|---|\n' + '\n'.join(f"| `{n}` | {'' if v is None else f'`{_cell(v)}`'} | {_cell(doc)} |" for n,v,doc in args))
    return '\n\n'.join(md)

def api(syms):
    "{page: text} of the reference: one table of every public name, and a page for each module"
    mods = list(dict.fromkeys(o.module for o in syms.values()))
    first = ['# Every name\n\n`from vehicle_reid.all import *` brings nearly all of these; each is also in its own module.\n']
    pages = {}
    for m in mods:
        mine = {n: o for n,o in syms.items() if o.module==m}
        first.append(f'\n## [{m}](reference/{m}.md)\n\n|||\n|---|---|')
        first += [f'| [`{n}`](reference/{m}.md#{slug(n)}) | {_cell(o.doc)} |' for n,o in mine.items()]
        told = next(iter(mine.values())).page
        pages[f'reference/{m}.md'] = '\n\n'.join([f'# vehicle_reid.{m}', f'The story is told in [{told}](../{told}.ipynb).', *(entry(n, o) for n,o in mine.items())])+'\n'
    first.append('\n```{toctree}\n:hidden:\n\n' + '\n'.join(f'reference/{m}' for m in mods) + '\n```')
    return {'api.md': '\n'.join(first)+'\n', **pages}

# --- the paper, item by item
PAPER = {'Eq.': {'1': 'likeness of channels', '2': 'the recalibrated attention map', '3': 'spatial attention at several dilations', '4': 'mean maps of Student and Teacher',
        '5': 'part transfer loss', '6': 'losses weighed by homoscedastic uncertainty', '7': 'batch-hard triplet', '8': 'the total loss'},
    'Algorithm': {'1': 'part mask generation'},
    'Fig.': {'1': 'parts found without labels (c)', '2': 'both networks', '3': 'PANet and channel recalibration', '4': "the Teachers' inputs", '5': 'multi-scale attention', '6': 'ranking lists',
        '7': 'parts beside uniform stripes', '8': 'attention of Teachers and Students', '9': 'occluded queries'},
    'Table': {'I': 'against the baseline on VeRi-776', 'II': 'VehicleID, three test sizes', 'III': 'parts, Students and Teachers, one by one', 'IV': 'attention modules', 'V': 'sharing and part transfer',
        'VI': 'uncertainty against fixed weights', 'VII': 'occluded vehicles'}}
_said = re.compile(r'\b(eqs?\.|equations?|figs?\.|figures?|tables?|algorithm)\s*((?:\d+|[IVX]+\b)[a-c]?(?:\s*(?:,|-|–|and|to)\s*(?:\d+|[IVX]+\b)[a-c]?)*)|\\tag\{(\d)\}|\b(Exp-\d)', re.I)
_roman = ['','I','II','III','IV','V','VI','VII']

def mentions(s):
    "{(kind, number)} that a text names: 'eq. 1-3' names three equations"
    found = set()
    for m in _said.finditer(s):
        if m[4]: found.add(('Table', 'III')); continue # the experiments are the rows of Table III
        if m[3]: found.add(('Eq.', m[3])); continue
        kind = next(k for k in PAPER if k[0].lower()==m[1][0].lower())
        ends = re.split(r'\s*(,|-|–|and|to)\s*', re.sub(r'(?<=[\dIVX])[a-c]', '', m[2]))
        num = [_roman.index(o) if o in _roman else int(o) if o.isdigit() else 0 for o in ends[::2]]
        for i,n in enumerate(num):
            span = range(num[i-1]+1, n+1) if i and ends[2*i-1] in ('-','–','to') else [n]
            found |= {(kind, _roman[j] if kind=='Table' and j<len(_roman) else str(j)) for j in span}
    return {o for o in found if o[1] in PAPER[o[0]]}

def paper_map(root, syms):
    "{(kind, number): (public names whose source names it, pages that tell of it)}"
    res = {(k,n): ([],[]) for k,o in PAPER.items() for n in o}
    for n,o in syms.items():
        for item in mentions(o.source.replace('_', ' ')): res[item][0].append(n)
    for path in notebooks(root):
        prose = '\n'.join(src for kind,_,src,_ in cells(path) if kind=='markdown')
        for item in mentions(prose): res[item][1].append(path.stem)
    return res

def paper(root, syms):
    "The page that leads from each equation, figure, table and algorithm to its code"
    md = ['# The paper, item by item', '*Weakly-supervised Part-Attention and Mentored Networks for Vehicle Re-Identification*: where each of its equations, figures and tables lives. '
        'The page is written from the code: a name stands here because its source names the item.']
    found = paper_map(root, syms)
    for kind,o in PAPER.items():
        md.append('| | | code | told in |\n|---|---|---|---|\n' + '\n'.join(
            f"| **{kind} {n}** | {what} | {', '.join(f'[`{s}`](#{anchor(s)})' for s in names)} | {', '.join(f'[{title(root, p)}]({p}.ipynb)' for p in told)} |"
            for n,what in o.items() for names,told in [found[kind,n]]))
    return '\n\n'.join(md)+'\n'

def title(root, stem):
    "A notebook's H1"
    return next(m[1] for _,_,src,_ in cells(root/'nbs'/f'{stem}.ipynb') if (m := re.search(r'^# (.+)', src, re.M)))

def toctree(paths):
    "The side bar: notebooks by their numbers, then what is left"
    num = {p: int(re.match(r'\d+', p.name)[0]) for p in paths if p.name[0].isdigit()}
    groups = [(t, [p.stem for p in paths if p in num and (PARTS[i-1][0] if i else 0)<=num[p]<n]) for i,(n,t) in enumerate(PARTS)]
    groups.append(('Reference', ['paper','api']+[Path(o).stem for o in EXTRA]))
    return '\n\n'.join('```{toctree}\n:hidden:\n:caption: '+t+'\n\n'+'\n'.join(ps)+'\n```' for t,ps in groups if ps)

def write_pages(root=ROOT):
    "All pages into _build/pages"
    from nbdev.doclinks import NbdevLookup
    out,syms,lookup = root/'_build/pages',symbols(root),NbdevLookup(incl_libs=('fastai','fastcore')).doc
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for p in notebooks(root):
        nb = page(p, syms, lookup)
        if p.stem=='index': nb['cells'].append(dict(cell_type='markdown', metadata={}, id='toc', source=toctree(notebooks(root))))
        dest = out/p.relative_to(root/'nbs')
        dest.parent.mkdir(parents=True, exist_ok=True)
        dest.write_text(json.dumps(nb), encoding='utf-8')
    for o in EXTRA: shutil.copy(root/o, out/o)
    if (root/'nbs/images').exists(): shutil.copytree(root/'nbs/images', out/'images')
    for name,md in {'paper.md': paper(root, syms), **api(syms)}.items():
        (out/name).parent.mkdir(exist_ok=True)
        (out/name).write_text(md, encoding='utf-8')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--readme', action='store_true', help='write README.md instead of the site\'s pages')
    (write_readme if p.parse_args().readme else write_pages)()
