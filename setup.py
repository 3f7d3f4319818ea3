"Packaging: every fact comes from settings.ini"
from configparser import ConfigParser
from setuptools import setup, find_packages

cp = ConfigParser(delimiters=['='])
cp.read('settings.ini', encoding='utf-8')
s = cp['DEFAULT']
setup(
    name=s['lib_name'], version=s['version'], description=s['description'], license_expression=s['license'],
    author=s['author'], author_email=s['author_email'], keywords=s['keywords'].split(),
    long_description=open('README.md', encoding='utf-8').read(), long_description_content_type='text/markdown',
    packages=find_packages(include=[s['lib_name']+'*']), python_requires='>='+s['min_python'],
    install_requires=s['requirements'].split(), extras_require={o: s[f'{o}_requirements'].split() for o in ('fast','onnx','dev')},
    entry_points={'console_scripts': s['console_scripts'].split(),
                  'nbdev': [f"{s['lib_name']}={s['lib_name']}._modidx:d"]})
