"Turns notebooks into what Sphinx reads (`_build/pages`) and, with `--readme`, nbs/index.ipynb into README.md. Nothing is executed: outputs are those saved."
import argparse, ast, base64, json, posixpath, re, shutil
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

def symbols(root):
    "{public name: (module, first line of its docstring)} of all notebooks, in reading order"
    res = {}
    for path in notebooks(root):
        mod = re.search(r'^#\|\s*default_exp\s+(\S+)', '\n'.join(text(c['source']) for c in json.loads(path.read_text(encoding='utf-8'))['cells']), re.M)
        for kind,d,src,_ in cells(path):
            if kind!='code' or not mod or not {'export','exports'} & set(d): continue
            docs = {o.name: (ast.get_docstring(o) or '') for o in ast.parse(src).body if isinstance(o, (ast.FunctionDef, ast.ClassDef))}
            for n in defined(src):
                if not n.startswith('_'): res[n] = mod[1], docs[n.split('.')[-1]].split('\n')[0]
    return res

def autolink(md, syms, lookup):
    "`name` in prose → a link to its definition, here or at docs.fast.ai; fences, headings, equations and links stay as they are"
    def _one(m):
        name = m[1].removesuffix('()')
        if name in syms: return f'[{m[0]}](#{anchor(name)})'
        url = len(name)>2 and lookup(name)
        return f'[{m[0]}]({url})' if url and url.startswith('http') else m[0]
    parts = _fence.split(md)
    parts[::2] = [re.sub(r'(?<!`)`([\w.]+(?:\(\))?)`(?!`)', _one, o) for o in parts[::2]]
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

def api(syms):
    "One table of every public name"
    res,last = ['# Every name\n\n`from vehicle_reid.all import *` brings all of these.\n'],None
    for n,(mod,doc) in syms.items():
        if mod!=last: res.append(f'\n## {mod}\n\n|||\n|---|---|')
        last = mod
        res.append(f"| [`{n}`](#{anchor(n)}) | {doc.replace('|', chr(92)+'|')} |")
    return '\n'.join(res)+'\n'

def toctree(paths):
    "The side bar: notebooks by their numbers, then what is left"
    num = {p: int(re.match(r'\d+', p.name)[0]) for p in paths if p.name[0].isdigit()}
    groups = [(t, [p.stem for p in paths if p in num and (PARTS[i-1][0] if i else 0)<=num[p]<n]) for i,(n,t) in enumerate(PARTS)]
    groups.append(('Reference', ['api']+[Path(o).stem for o in EXTRA]))
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
    (out/'api.md').write_text(api(syms), encoding='utf-8')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--readme', action='store_true', help='write README.md instead of the site\'s pages')
    (write_readme if p.parse_args().readme else write_pages)()
