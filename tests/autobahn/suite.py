"""The case classes of PyPI's `autobahntestsuite`, which are written for Python 2, loaded
into Python 3 from where pip has put them: nothing of them is copied.

A `str` of theirs is a row of octets. Here it is text with one character for each octet;
`octets` and `text` say how it is taken to the wire and from it."""

import ast
import binascii
import importlib.abc
import importlib.machinery
import importlib.util
import os
import re
import sys
import types

from autobahn.websocket.utf8validator import Utf8Validator

# What is written in another way today, as far as the cases have it.
REWRITTEN = [
    # The unit tests of theirs that print are not run.
    (re.compile(r"^( *)print\b.*$", re.M), r"\1pass"),
    # Their base was of the old kind of classes, and stood behind `object`.
    (re.compile(r"\(object, Case, \)"), "(Case, )"),
    # The case without a bound is not in their list, and needs Twisted.
    (re.compile(r"^from case9_9_1 import \*$", re.M), ""),
    # These two take octets: ours are given to each module instead.
    (re.compile(r"\bbinascii\.b2a_hex\b"), "b2a_hex"),
    (re.compile(r"^from autobahn\.websocket\.utf8validator import .*$", re.M), ""),
    # What `autobahn` has renamed since.
    (re.compile(r"\brequestNoContextTakeover\b"), "request_no_context_takeover"),
    (re.compile(r"\brequestMaxWindowBits\b"), "request_max_window_bits"),
]


def octets(said):
    """What goes to the wire for a `str` of a case."""
    return said.encode("latin-1") if isinstance(said, str) else said


def text(heard):
    """The `str` of a case for what came from the wire."""
    return heard.decode("latin-1")


class Validator(Utf8Validator):
    def validate(self, said):
        return super().validate(octets(said))


class WholeDivision(ast.NodeTransformer):
    """A quotient of whole numbers was a whole number."""

    def visit_Div(self, node):
        return ast.FloorDiv()


class Loader(importlib.machinery.SourceFileLoader):
    def source_to_code(self, data, path, *, _optimize=-1):
        # A literal of theirs holds the octets that stand in the file.
        source = data.decode("latin-1").replace("\r\n", "\n")
        for pattern, ours in REWRITTEN:
            source = pattern.sub(ours, source)
        return compile(WholeDivision().visit(ast.parse(source, path)), path, "exec")

    def get_code(self, fullname):
        # Without a cache: what is compiled is not what stands in the file.
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def exec_module(self, module):
        module.xrange = range
        module.Utf8Validator = Validator
        module.b2a_hex = lambda said: text(binascii.b2a_hex(octets(said)))
        super().exec_module(module)


class Finder(importlib.abc.MetaPathFinder):
    """Modules in the directory of the cases, which import each other by bare names."""

    def __init__(self, directory):
        self.directory = directory

    def find_spec(self, name, path=None, target=None):
        file = os.path.join(self.directory, name + ".py")
        if not os.path.exists(file):
            return None
        return importlib.util.spec_from_file_location(name, file, loader=Loader(name, file))


def resources(package):
    """The one function of `pkg_resources` that the cases use."""
    module = types.ModuleType("pkg_resources")
    module.resource_filename = lambda _, name: os.path.join(package, name)
    return module


def cases(messages):
    """All case classes by their numbers, in the order of the suite; those that send a
    thousand messages send so many."""
    package = importlib.util.find_spec("autobahntestsuite").submodule_search_locations[0]
    sys.modules["pkg_resources"] = resources(package)
    sys.meta_path.insert(0, Finder(os.path.join(package, "case")))
    file = os.path.join(package, "case", "__init__.py")
    loader = Loader("cases", file)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("cases", loader))
    loader.exec_module(module)
    found = {}
    for case in module.Cases:
        if hasattr(case, "COUNT"):
            case.COUNT = messages
        found[case.__name__.removeprefix("Case").replace("_", ".")] = case
    # Theirs compares by how `pickle` writes, which tells equal from identical.
    next(iter(found.values())).__mro__[-2].compare = lambda self, one, other: one == other
    return found
