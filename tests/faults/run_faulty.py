"""Runs named tests against a patched copy of the installed sources: run_faulty.py TREE TEST...

An editable install resolves `privkt` through an import hook that would win over sys.path, so hooks of the build
backend are taken out before anything is imported.
"""

import sys

tree, tests = sys.argv[1], sys.argv[2:]
sys.meta_path = [finder for finder in sys.meta_path if "scikit" not in type(finder).__module__.lower()]
sys.meta_path = [finder for finder in sys.meta_path if "ScikitBuild" not in type(finder).__name__]
sys.path.insert(0, tree)

import privkt  # noqa: E402

assert privkt.__file__.startswith(tree), f"the patched copy was not imported: {privkt.__file__}"

import pytest  # noqa: E402

sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *tests]))
