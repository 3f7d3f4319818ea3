"Sphinx settings of the site; `make docs` runs pages.py first"
import sys
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path
from docutils import nodes
here = Path(__file__).resolve().parent
sys.path.insert(0, str(here))

meta = ConfigParser(delimiters=['='])
meta.read(here.parents[1]/'settings.ini', encoding='utf-8')
project,release = meta['DEFAULT']['lib_name'],meta['DEFAULT']['version']
author = meta['DEFAULT']['author']
project_copyright = author
extensions = ['myst_nb', 'sphinx_copybutton']
nb_execution_mode = 'off' # outputs are those saved in the notebooks
nb_merge_streams = True
nb_render_markdown_format = 'gfm' # tables in outputs
nb_code_prompt_show,nb_code_prompt_hide = 'Code','Code' # imports say so themselves: pages.code_cell
myst_enable_extensions = ['dollarmath', 'amsmath', 'colon_fence', 'attrs_inline']
myst_dmath_double_inline = True
myst_heading_anchors = 3
myst_heading_slug_func = 'pages.slug' # a string: a function cannot be pickled
suppress_warnings = ['myst.header']
html_theme,html_title = 'furo',project
html_show_copyright = html_show_sourcelink = False
html_copy_source = html_use_index = False
pygments_style,pygments_dark_style = 'friendly','github-dark'
html_css_files = ['site.css']
html_static_path = ['site.css', str(Path(find_spec('sphinx-mathjax-offline').origin).parent/'static/mathjax/tex-svg.js')]
html_extra_path = ['../llms.txt'] # for those who read with a language model
mathjax_path = 'tex-svg.js' # equations without a network

def short_cells(app, doctree):
    "Numbers and dates in tables do not wrap"
    for o in doctree.findall(nodes.entry):
        if len(o.astext())<=24: o['classes'].append('short')

def setup(app):
    app.connect('doctree-read', short_cells)
    return dict(parallel_read_safe=True)
