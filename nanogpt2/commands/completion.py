"""The command completion: what lets a shell complete the commands."""

import click

from nanogpt2.commands.command import shown

# Each shell's script asks the Python of the line itself, by click's own protocol
# (https://click.palletsprojects.com/en/stable/shell-completion). click's own scripts are for a
# program of one word; here two more words come before the command. All else that follows `python`
# is completed as before, and files wherever there is nothing else to propose.
BASH = """\
_nanogpt2_completion() {
    local words=("${COMP_WORDS[@]:2}") type value
    [[ ${COMP_WORDS[1]} == -m && $words == nanogpt2 && $COMP_CWORD -gt 2 ]] || return
    while IFS=, read -r type value; do
        [[ $type == plain ]] && COMPREPLY+=("$value")
        [[ $value == *= ]] && compopt -o nospace 2> /dev/null
    done < <(COMP_WORDS="${words[*]}" COMP_CWORD=$((COMP_CWORD - 2)) \\
        _NANOGPT2_COMPLETE=bash_complete "${COMP_WORDS[0]}" -m nanogpt2 2> /dev/null)
}
complete -o nosort -o default -F _nanogpt2_completion python python3 2> /dev/null ||
    complete -o default -F _nanogpt2_completion python python3  # bash before 4.4
"""
ZSH = """\
_nanogpt2_completion() {
    local -a described plain answer
    local type key text
    if [[ $words[2] != -m || $words[3] != nanogpt2 || $CURRENT -lt 4 ]]; then
        _python "$@"
        return
    fi
    answer=("${(@f)$(COMP_WORDS="${words[3,-1]}" COMP_CWORD=$((CURRENT - 3)) \\
        _NANOGPT2_COMPLETE=zsh_complete $words[1] -m nanogpt2 2> /dev/null)}")
    for type key text in $answer; do
        [[ $type == plain ]] || continue
        if [[ $text == _ ]]; then plain+=("$key"); else described+=("$key:$text"); fi
    done
    local -a keys=(${(M)plain:#*=})
    plain=(${plain:#*=})
    (( $#keys )) && compadd -U -S '' -V nanogpt2 -a keys
    (( $#described )) && _describe -V nanogpt2 described -U
    (( $#plain )) && compadd -U -V nanogpt2 -a plain
    (( $#described + $#plain + $#keys )) || _files
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
autoload -Uz _python
compdef _nanogpt2_completion python python3
"""
FISH = """\
function _nanogpt2_asked
    set -l words (commandline -opc)
    test "$words[2..3]" = "-m nanogpt2"
end
function _nanogpt2_completion
    set -l words (commandline -opc)
    set -l answer (COMP_WORDS="$words[3..]" COMP_CWORD=(commandline -t) \\
        _NANOGPT2_COMPLETE=fish_complete $words[1] -m nanogpt2 2> /dev/null)
    string replace --filter "plain," "" -- $answer
end
complete --command python --condition _nanogpt2_asked --arguments "(_nanogpt2_completion)"
complete --command python3 --condition _nanogpt2_asked --arguments "(_nanogpt2_completion)"
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def complete_preset(context: click.Context, option: click.Parameter, begun: str) -> list[str]:
    """Return the presets whose names begin so."""
    from nanogpt2.config.config import preset_names

    return [name for name in preset_names() if name.startswith(begun)]


def complete_key(context: click.Context, option: click.Parameter, begun: str) -> list[str]:
    """Return the keys of params.yaml that begin so, with the `=` after them."""
    from nanogpt2.config.schema import load_schema

    rules = load_schema()["properties"].items()
    inner = [f"{key}.{name}" for key, rule in rules for name in rule.get("properties", {})]
    keys = [*(key for key, rule in rules if "properties" not in rule), *inner]
    return [f"{key}=" for key in keys if key.startswith(begun)]


@click.command()
@click.argument("shell", type=click.Choice([*SCRIPTS]))
@shown
def main(shell: str) -> None:
    """Print the lines that let SHELL complete `python -m nanogpt2`, for its start-up file.

    \b
    python -m nanogpt2 completion bash >> ~/.bashrc
    python -m nanogpt2 completion zsh >> ~/.zshrc
    python -m nanogpt2 completion fish > ~/.config/fish/conf.d/nanogpt2.fish
    """
    from nanogpt2.base.screen.screen import done

    click.echo(SCRIPTS[shell], nl=False)
    done(f"{shell}'s completion, for a new shell")
