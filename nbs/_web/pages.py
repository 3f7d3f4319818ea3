"Turns notebooks into what Sphinx reads (`_build/pages`) and, with `--readme`, nbs/index.ipynb into README.md. Nothing is executed: outputs are those saved."
import argparse, ast, base64, enum, hashlib, importlib, inspect, json, posixpath, re, shutil
from collections import Counter, namedtuple
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GROUPS = {'Tutorials': [60,61,63,65,67,66,62,64,*range(68, 100)], 'What is a vehicle image': range(1, 6), 'Where are the parts': range(9, 20), 'What do they look like': range(20, 30),
    'What is learned': range(30, 40), 'How is it judged': range(40, 50), 'All together': range(50, 60), 'Under the hood': [0,6,7,8]} # the side bar: numbers of notebooks in the order of reading
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

def _anchor(name): return 'api-' + name.lower().replace('_', '-').replace('.', '-')

def defined(src):
    "(name, syntax tree) of each function and class that a cell defines; a patched method as Class.method"
    for o in ast.parse(re.sub(r'^[%!].*$', '', src, flags=re.M)).body:
        if not isinstance(o, (ast.FunctionDef, ast.ClassDef)): continue
        patch = any(getattr(d, 'id', getattr(getattr(d, 'func', None), 'id', '')).startswith('patch') for d in o.decorator_list)
        owner = getattr(o.args.args[0].annotation, 'id', None) if patch and o.args.args else None
        yield (f'{owner}.{o.name}' if owner else o.name), o

Symbol = namedtuple('Symbol', 'name module doc page source anchor') # source: its definition alone

def module_of(path):
    "The module that a notebook exports, or None"
    src = '\n'.join(text(c['source']) for c in json.loads(path.read_text(encoding='utf-8'))['cells'])
    return (m := re.search(r'^#\|\s*default_exp\s+(\S+)', src, re.M)) and m[1]

def symbols(root):
    "A `Symbol` for every public name of each module, in reading order; modules may share a name, anchors differ"
    res = []
    for path in reading_order(notebooks(root)):
        if not (mod := module_of(path)): continue
        for kind,d,src,_ in cells(path):
            if kind!='code' or not {'export','exports'} & set(d): continue
            for n,o in defined(src):
                if n.startswith('_') or '._' in n: continue
                res.append(Symbol(n, mod, (ast.get_docstring(o) or '').split('\n')[0], path.stem, ast.get_source_segment(src, o), _anchor(n)))
    shared = {a for a,n in Counter(o.anchor for o in res).items() if n>1}
    return [o._replace(anchor=_anchor(f'{o.module}.{o.name}')) if o.anchor in shared else o for o in res]

# --- links of names in prose
OWNERS = dict(learn='ReIDLearner', dls='ReIDDataLoaders', gallery='Gallery', gal='Gallery', panet='PANet', pmnet='PMNet', interp='ReIDInterpretation') # what the book calls its objects
NOT_FASTAI = {'DataLoader','Dataset','Resize','Sampler','Transform'} # PyTorch, torchvision or ONNX have one, too

def _word(name): return name.isalpha() and name.islower()

def public(name, syms, here=None):
    "Every `Symbol` that `name` may stand for on page `here`: by its owner (`learn.evaluate`), as it is, or as a method; an ordinary word (`search`) only where it is defined"
    owner,_,last = name.rpartition('.')
    if owner:
        cls = OWNERS.get(owner, owner)
        return [o for o in syms if o.name==f'{cls}.{last}'] or [o for o in syms if (o.module,o.name)==(owner,last) or o.name==cls and f'self.{last}' in o.source]
    found = [o for o in syms if o.name.split('.')[-1]==name]
    mine = [o for o in found if here in (o.page,o.module)]
    found = mine if _word(name) else mine or found
    return [o for o in found if o.name==name] or found

def address(name, syms, lookup, here=None):
    "What a name in backticks leads to: its definition here, else one at docs.fast.ai, else None; never a guess between two"
    if found := public(name, syms, here): return f'#{found[0].anchor}' if len(found)==1 else None
    if len(name)<3 or _word(name) or name in NOT_FASTAI: return None
    url = lookup(re.sub(r'^learn\.', 'Learner.', name)) or ''
    return url if url.startswith('http') else None

def autolink(md, syms, lookup, here=None):
    "`name` or `name(...)` in prose → a link to its definition; fences, headings, equations and links stay as they are"
    def _one(m): return f'[{m[0]}]({to})' if (to := address(m[1], syms, lookup, here)) else m[0]
    parts = _fence.split(md)
    parts[::2] = [re.sub(r'(?<!`)`([\w.]+)(?:\([^`]*\))?`(?!`)', _one, o) for o in parts[::2]]
    return ''.join(parts)

# --- notebooks as pages
def _only_imports(src):
    return all(isinstance(o, (ast.Import, ast.ImportFrom)) for o in ast.parse(re.sub(r'^[%!].*$', 'pass', src, flags=re.M)).body)

def code_cell(d, src, outs):
    "A code cell as MyST-NB wants it: imports and what asks for it are folded, short cells of tables do not wrap"
    imports = _only_imports(src)
    meta = {'tags': ['remove-input'] if d.get('echo')=='false' else ['hide-input'] if imports or 'code-fold' in d else []}
    if imports: meta['mystnb'] = dict(code_prompt_show='Imports', code_prompt_hide='Imports')
    for o in outs:
        if 'text/html' in (data := o.get('data', {})): data['text/html'] = re.sub(r'<(t[dh])>([^<]{1,24})(?=</t)', r'<\1 class="short">\2', text(data['text/html']))
    return dict(cell_type='code', execution_count=None, metadata=meta, source=src, outputs=outs)

def lead_to_example(cs, stem):
    "An exported intro that ends in a colon, as a module's docstring goes on with the `exportd` cells: here these come later, so the intro names the first"
    i = next((i for i,(kind,d,src,_) in enumerate(cs) if kind=='markdown' and 'export' in d and src.rstrip().endswith(':')), None)
    j = next((j for j,(kind,d,*_) in enumerate(cs) if i is not None and j>i and 'exportd' in d), None)
    if j is None: return cs
    here = f'api-example-{stem.replace("_", "-")}'
    kind,d,src,outs = cs[i]
    return [*cs[:i], (kind, d, f'{src.rstrip()[:-1]} ([example](#{here})).', outs), *cs[i+1:j], ('markdown', {}, f'({here})=\n', []), *cs[j:]]

def page(path, syms, lookup):
    "A notebook as MyST-NB wants it"
    res = []
    def _md(s): res.append(dict(cell_type='markdown', metadata={}, source=s))
    for kind,d,src,outs in lead_to_example(list(cells(path)), path.stem):
        if kind=='markdown':
            _md(relink(autolink(src, syms, lookup, path.stem), lambda p: p.removeprefix('../') if p.removeprefix('../') in EXTRA else p))
            continue
        if {'export','exports'} & set(d): _md('\n'.join(f'({o.anchor})=' for n,_ in defined(src) for o in syms if (o.page,o.name)==(path.stem,n))+'\n')
        res.append(code_cell(d, src, outs))
    for i,c in enumerate(res): c['id'] = f'c{i}'
    meta = dict(kernelspec=dict(display_name='python3', language='python', name='python3'), language_info=dict(name='python'))
    return dict(cells=[c for c in res if c['source'].strip()], metadata=meta, nbformat=4, nbformat_minor=5)

# --- the reference
def _prose(s):
    "A docstring or comment as it was typed: only `backticks` mean something to Markdown"
    return ''.join(o if i%2 else re.sub(r'([\\<*_\[\]$~])', r'\\\1', o) for i,o in enumerate(re.split(r'(`[^`]*`)', s)))

def _cell(s): return str(s).replace('|', '\\|').replace('\n', ' ')

def _default(v):
    "A default as one would type it"
    if isinstance(v, enum.Enum): return f'{type(v).__name__}.{v.name}'
    if isinstance(v, float): return repr(v) if len(repr(v))<8 else f'{v:.3g}'
    if type(v) in (list,tuple):
        inner = ', '.join(map(_default, v))
        return f'[{inner}]' if type(v) is list else f'({inner},)' if len(v)==1 else f'({inner})'
    if isinstance(v, type) or inspect.isroutine(v): return v.__name__
    return re.sub(r' at 0x[0-9a-f]+', '', repr(v))

def _ours(cls):
    "Whether a class says itself how it is made; else its arguments are fastai's, PyTorch's or none"
    return hasattr(cls, '_fields') or next(o for o in cls.__mro__ if '__init__' in vars(o)).__module__.startswith('vehicle_reid')

def arguments(obj, source=''):
    "[(name, default or None, meaning)] of a function, or of a class of our own making, from its docments; `*` alone where only keywords follow"
    from fastcore.docments import docments
    if isinstance(obj, property) or isinstance(obj, type) and not _ours(obj): return []
    docs,res = {k: o.docment for k,o in docments(obj, full=True).items()},[]
    if hasattr(obj, '_fields'): docs |= dict(re.findall(r'^    (\w+) *:[^#\n]*# *(.+)$', source, re.M)) # docments knows no NamedTuple
    for n,o in inspect.signature(obj).parameters.items():
        if n in ('self','cls'): continue
        if o.kind==o.KEYWORD_ONLY and not any(k.startswith('*') for k,*_ in res): res.append(('*', None, ''))
        stars = {o.VAR_POSITIONAL: '*', o.VAR_KEYWORD: '**'}.get(o.kind, '')
        res.append((stars+n, None if o.default is o.empty else _default(o.default), docs.get(n) or ''))
    return res

def signature(name, obj, args):
    "How it is called; one argument a line if it is long. A class that inherits its `__init__` shows of whom"
    if isinstance(obj, property): return name
    if isinstance(obj, type) and not _ours(obj):
        bases = ', '.join(o.__name__ for o in obj.__bases__ if o is not object)
        return f'class {name}({bases})' if bases else f'class {name}'
    typed = [n if v is None else f'{n}={v}' for n,v,_ in args]
    line = f"{name}({', '.join(typed)})"
    return line if len(line)<=80 else f'{name}(\n    ' + ',\n    '.join(typed) + '\n)'

def entry(sym, told):
    "A name's part of the reference: signature, what it does, a table of its arguments"
    obj = importlib.import_module(f'vehicle_reid.{sym.module}')
    for o in sym.name.split('.'): obj = inspect.getattr_static(obj, o) if not hasattr(obj, o) else getattr(obj, o)
    args = arguments(obj, sym.source)
    where = f'[told in {told}](#{sym.anchor})'
    md = [f'## `{sym.name}`', f'```python\n{signature(sym.name, obj, args)}\n```', f'{_prose(sym.doc)} · {where}' if sym.doc else where]
    if any(doc for *_,doc in args):
        md.append('| argument | default | meaning |\n|---|---|---|\n' + '\n'.join(
            f"| `{n}` | {'' if v is None else f'`{_cell(v)}`'} | {_cell(_prose(doc))} |" for n,v,doc in args if n!='*'))
    return '\n\n'.join(md)

def api(root, syms):
    "{page: text} of the reference: one table of every public name, and a page for each module"
    first,pages = ['# Every name\n\n`from vehicle_reid.all import *` brings nearly all of these; each is also in its own module.\n'],{}
    mods = list(dict.fromkeys(o.module for o in syms))
    for m in mods:
        mine = [o for o in syms if o.module==m]
        first.append(f'\n## [{m}](reference/{m}.md)\n\n| name | what it is |\n|---|---|')
        first += [f'| [`{o.name}`](reference/{m}.md#{slug(o.name)}) | {_cell(_prose(o.doc))} |' for o in mine]
        stem = mine[0].page
        told = title(root, stem)
        pages[f'reference/{m}.md'] = '\n\n'.join([f'# vehicle_reid.{m}', f'The story is told in [{told}](../{stem}.ipynb).', *(entry(o, told) for o in mine)])+'\n'
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

HEADS = {'Eq.': 'Equations', 'Algorithm': 'Algorithm', 'Fig.': 'Figures', 'Table': 'Tables'}

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
    "{(kind, number): (symbols whose source names it, pages that tell of it)}"
    res = {(k,n): ([],[]) for k,o in PAPER.items() for n in o}
    for o in syms:
        for item in mentions(o.source.replace('_', ' ')): res[item][0].append(o)
    for path in notebooks(root):
        prose = '\n'.join(src for kind,_,src,_ in cells(path) if kind=='markdown')
        for item in mentions(prose): res[item][1].append(path.stem)
    return res

def equations(root):
    "{number: LaTeX} of the paper's equations, as the notebooks set them"
    prose = '\n\n'.join(src for p in notebooks(root) for kind,_,src,_ in cells(p) if kind=='markdown')
    return {n: eq.strip() for eq,n in re.findall(r'\$\$([^$]+?)\\tag\{(\d)\}\s*\$\$', prose)}

def paper(root, syms):
    "The page that leads from each equation, figure, table and algorithm to its code"
    md = ['# The paper, item by item', '*Weakly-supervised Part-Attention and Mentored Networks for Vehicle Re-Identification*: where each of its equations, figures and tables lives. '
        'The page is written from the code: a name stands here because its source names the item.']
    found,eqs = paper_map(root, syms),equations(root)
    for kind,o in PAPER.items():
        rows = []
        for n,what in o.items():
            names,told = found[kind,n]
            if kind=='Eq.' and n in eqs: what += rf'<br>$\displaystyle {_cell(eqs[n])}$'
            rows.append(f"| **{kind} {n}** | {what} | {', '.join(f'[`{s.name}`](#{s.anchor})' for s in names)} | {', '.join(f'[{title(root, p)}]({p}.ipynb)' for p in told)} |")
        md.append(f'## {HEADS[kind]}\n\n:::{{table}}\n:class: paper\n\n| item | what it is | code | told in |\n|---|---|---|---|\n' + '\n'.join(rows) + '\n:::')
    return '\n\n'.join(md)+'\n'

def title(root, stem):
    "A notebook's H1"
    return next(m[1] for _,_,src,_ in cells(root/'nbs'/f'{stem}.ipynb') if (m := re.search(r'^# (.+)', src, re.M)))

# --- order
def grouped(paths):
    "{group of the side bar: its notebooks, in the order of reading}"
    num = {int(m[0]): p for p in paths if (m := re.match(r'\d+', p.name))}
    return {t: [num[n] for n in ns if n in num] for t,ns in GROUPS.items()}

def reading_order(paths): return [p for ps in grouped(paths).values() for p in ps]

def toctree(paths):
    "The side bar: notebooks in the order of reading, then what is left"
    groups = {t: [p.stem for p in ps] for t,ps in grouped(paths).items()} | {'Reference': ['paper','api']+[Path(o).stem for o in EXTRA]}
    return '\n\n'.join('```{toctree}\n:hidden:\n:caption: '+t+'\n\n'+'\n'.join(ps)+'\n```' for t,ps in groups.items() if ps)

def written(root, syms, lookup):
    "{path: text} of the pages that are no notebooks"
    md = {'paper.md': paper(root, syms), **api(root, syms), **{o: (root/o).read_text(encoding='utf-8') for o in EXTRA}}
    return {name: autolink(o, syms, lookup, Path(name).stem if name.startswith('reference/') else None) for name,o in md.items()}

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
    if (root/'nbs/images').exists(): shutil.copytree(root/'nbs/images', out/'images')
    for name,md in written(root, syms, lookup).items():
        (out/name).parent.mkdir(exist_ok=True)
        (out/name).write_text(md, encoding='utf-8')

def fingerprint(root=ROOT):
    "One line for everything that the site is made of: `docs/built_from.txt` is older than its sources if it holds another"
    files = [*notebooks(root), *(root/'nbs/images').glob('*'), *(root/'nbs/_web').glob('*.*'), root/'nbs/llms.txt', *(root/o for o in EXTRA), root/'settings.ini', *(root/'vehicle_reid').glob('*.py')]
    h = hashlib.sha256()
    for f in sorted(files): h.update(f.relative_to(root).as_posix().encode() + b'\0' + hashlib.sha256(f.read_bytes()).digest())
    return h.hexdigest()+'\n'

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--readme', action='store_true', help='write README.md instead of the site\'s pages')
    p.add_argument('--fingerprint', action='store_true', help='print a line that changes with anything the site is made of')
    a = p.parse_args()
    if a.fingerprint: print(fingerprint(), end='')
    else: (write_readme if a.readme else write_pages)()
