"""Triton's interpreter in two thirds of its time, for the modules of tests that import this.

Each call of a function in a kernel looks through all of Triton's language for what the interpreter
has to replace, though the launch of the kernel has replaced it. It need not look again.
"""

from typing import Any

from triton import language
from triton.runtime import interpreter

MODULES = (language, language.core)
replace = interpreter._patch_lang
nothing = getattr(interpreter, "_LangPatchScope", lambda: None)  # what there is to undo after it


def replace_once(function: Any) -> Any:
    known = {id(value) for value in function.__globals__.values()}
    seen = [module for module in MODULES if id(module) in known]
    replaced = all(not language.core.is_builtin(module.load) for module in seen)
    return nothing() if replaced else replace(function)


interpreter._patch_lang = replace_once
