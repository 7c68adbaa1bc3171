# Make the tool's own environment; sourced by ./gpu-setup and ./test, which set `root`, `tool`, `lock` and `digest`.
# Sets `python` to the environment's interpreter, or ends the launcher: 3 nothing usable here, 4 disk or network failed.
# `proof` names the modules that must import for an environment to count as whole.
# shellcheck shell=sh disable=SC2154

say() {
    printf 'gpu-setup: %s\n' "$*" >&2
}

# what, why, next (and more lines of next)
explain() {
    say "$1"
    printf '  why:  %s\n  next: %s\n' "$2" "$3" >&2
    shift 3
    for line in "$@"; do printf '        %s\n' "$line" >&2; done
}

# "3.12 yes|no PATH" of one interpreter: version, whether it can make environments, itself. Fails below 3.11.
probe() {
    "$1" -I -c '
import sys
if sys.version_info < (3, 11):
    print("%d.%d old %s" % (sys.version_info[0], sys.version_info[1], sys.executable)); sys.exit()
try:
    import ensurepip, venv
    able = "yes"
except ImportError:
    able = "no"
print("%d.%d %s %s" % (sys.version_info[0], sys.version_info[1], able, sys.executable))' 2>/dev/null
}

# The best interpreter: one that the training environment can use too (3.11 to 3.13) before a newer one.
choose_python() {
    best= best_rank=0 version= able=
    set -- python3 python3.13 python3.12 python3.11 python3.14 python3.15 python3.16
    [ -z "${GPU_SETUP_PYTHON:-}" ] || set -- "$GPU_SETUP_PYTHON"
    for candidate in "$@"; do
        found=$(probe "$candidate") || continue
        case $found in
            *" old "*) rank=1 ;;
            *" no "*) rank=2 ;;
            3.11\ * | 3.12\ * | 3.13\ *) rank=4 ;;
            *) rank=3 ;;
        esac
        if [ "$rank" -gt "$best_rank" ]; then
            best=$found best_rank=$rank
        fi
        [ "$rank" -eq 4 ] && break
    done
    version=${best%% *}
    interpreter=${best#* }
    able=${interpreter%% *}
    interpreter=${interpreter#* }
}

refuse_python() {
    if [ "$best_rank" -eq 1 ]; then
        why="Found only Python $version ($interpreter)."
    elif [ -n "${GPU_SETUP_PYTHON:-}" ]; then
        why="GPU_SETUP_PYTHON names $GPU_SETUP_PYTHON, which is not a Python that starts."
    else
        why="Found no python3 on PATH."
    fi
    explain "Python 3.11 or newer is needed to start." "$why" \
        "Install one (Ubuntu 22.04: sudo apt install python3.11-venv; Ubuntu 24.04: sudo apt install python3-venv)," \
        "or name one that is not on PATH: GPU_SETUP_PYTHON=/path/to/python3.12 ./gpu-setup ..."
    exit 3
}

# Ubuntu and Debian ship python3 without venv and ensurepip.
offer_venv() {
    if ! command -v apt-get >/dev/null 2>&1; then
        explain "Python $version ($interpreter) cannot make environments." \
            "Its modules venv and ensurepip are missing." \
            "Install them with your system's package manager, then run the same command again," \
            "or name another Python: GPU_SETUP_PYTHON=/path/to/python3.12 ./gpu-setup ..."
        exit 3
    fi
    sudo=sudo
    [ "$(id -u)" -eq 0 ] && sudo=
    explain "Python $version ($interpreter) cannot make environments yet." \
        "Ubuntu and Debian keep that part in a package of its own: python$version-venv is missing." \
        "${sudo:+$sudo }apt install python$version-venv" "then run the same command again."
    [ -t 0 ] && [ -t 2 ] || exit 3
    printf 'Run "%sapt install python%s-venv" now? [y/N] ' "${sudo:+$sudo }" "$version" >&2
    read -r answer || exit 3
    case $answer in
        y | Y | yes | Yes) ;;
        *) exit 3 ;;
    esac
    $sudo apt-get install -y "python$version-venv" >&2 || {
        explain "apt could not install python$version-venv." "Its own words stand above." \
            "sudo apt update, then run the same command again."
        exit 4
    }
    choose_python
    [ "$best_rank" -ge 3 ] && return
    explain "Python $version still cannot make environments." "python$version-venv was installed, but venv does not import." \
        "Name another Python: GPU_SETUP_PYTHON=/path/to/python3.12 ./gpu-setup ..."
    exit 3
}

unwritable() {
    explain "The folder $tool cannot be written." "${1:-The system refused to make it.}" \
        "Set GPU_SETUP_HOME to a folder that you can write, for example: GPU_SETUP_HOME=/var/tmp/gpu-setup ./gpu-setup ..."
    exit 4
}

# Count pip's packages as they come: in place on a terminal, every tenth line elsewhere.
show_packages() {
    count=0
    while read -r word name rest; do
        [ "$word" = Collecting ] || continue
        count=$((count + 1))
        if [ -t 2 ]; then
            printf '\r\033[Kgpu-setup: [3/3] packages: %d of %d (%s)' "$count" "$1" "${name%%=*}" >&2
        elif [ $((count % 10)) -eq 0 ]; then
            say "[3/3] packages: $count of $1"
        fi
    done
    [ -t 2 ] && printf '\r\033[K' >&2
    return 0
}

pip_failed() {
    # pip's last words, without the sources it tried: they may hold a password
    words=$(sed -n 's/^ERROR: //p' "$build/pip.log" | sed 's#://[^/@ ]*@#://#g' | tail -n 2)
    case $(cat "$build/pip.log") in
        *"No space left"*)
            why="The disk is full." next="Free some space (about 150 MB) and run the same command again." ;;
        *"DO NOT MATCH THE HASHES"*)
            why="A downloaded file is not the one that the lock names: a proxy or mirror changed it, or the download broke."
            next="Run the same command again; if it stays, look at pip's index settings: pip config list." ;;
        *"onnection"* | *"No matching distribution"* | *"imed out"* | *"resolution"* | *"ProxyError"* | *"SSLError"*)
            why="The network or the package index could not be reached."
            next="Check the network, the proxy (https_proxy) and pip's index settings (pip config list), then run the same command again." ;;
        *)
            why="pip stopped with code $1." next="Run the same command again." ;;
    esac
    rm -rf -- "$build"
    explain "The tool's packages could not be installed; nothing half-made is left." "$why" "$next" "pip said: ${words:-nothing}"
    exit 4
}

build_environment() {
    begin=$(date +%s)
    case ${GPU_SETUP_REBUILD:-} in
        wanted) say "making the tool's own environment anew in $tool" ;;
        *) say "first start: making the tool's own environment, once, in $tool" ;;
    esac
    say "[1/3] Python $version ($interpreter)"
    say "[2/3] an empty environment"
    build=$tool/build.$key.$$
    # what is to be replaced; another start may come first where there is no flock
    before=$("$interpreter" -I -c 'import os, sys; print(os.path.realpath(sys.argv[1]))' "$tool/$key")
    # everything half-made goes, also on Ctrl-C
    trap 'rm -rf -- "$build"; say "stopped; nothing half-made is left."; exit 130' INT TERM HUP
    rm -rf -- "$build"
    if ! made=$("$interpreter" -I -m venv -- "$build" 2>&1); then
        rm -rf -- "$build"
        case $made in
            *"ermission denied"* | *"ead-only"* | *"No space left"* | *"Errno"*) unwritable "The system says: $(printf %s "$made" | tail -n 1)" ;;
        esac
        explain "Python could not make an environment." "$(printf %s "$made" | tail -n 1)" \
            "Name another Python: GPU_SETUP_PYTHON=/path/to/python3.12 ./gpu-setup ..."
        exit 4
    fi
    total=$(grep -c '^[A-Za-z0-9][^ ]*==' "$lock")
    say "[3/3] packages: $total, each checked against its hash"
    # pip's own settings (index, proxy, certificates) hold; user and target installs would miss the environment
    unset PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_REQUIRE_VIRTUALENV PIP_QUIET PIP_VERBOSE PIP_LOG
    rc=$(
        {
            {
                "$build/bin/python" -I -m pip install --no-user --no-deps --require-hashes --no-input \
                    --disable-pip-version-check --progress-bar off -r "$lock" 3>&- 2>&1
                echo $? >&3
            } | tee -- "$build/pip.log" | show_packages "$total" >&2
        } 3>&1
    )
    [ "$rc" = 0 ] || pip_failed "$rc"
    # published by a link in one step, so that nobody ever sees half of it; the folder itself never moves. Of two that
    # built at once, the first counts and the second gives its own up
    "$interpreter" -I -c '
import os, shutil, sys
link, build, before = sys.argv[1:]
try:
    os.symlink(os.path.basename(build), link)
except FileExistsError:
    if os.path.realpath(link) != before:
        shutil.rmtree(build)
        sys.exit()
    os.symlink(os.path.basename(build), build + ".link")
    os.replace(build + ".link", link)
    if os.path.dirname(before) == os.path.realpath(os.path.dirname(link)):
        shutil.rmtree(before, ignore_errors=True)' "$tool/$key" "$build" "$before" || unwritable
    trap - INT TERM HUP
    say "ready after $(($(date +%s) - begin)) s"
}

usable() {
    [ -x "$tool/$key/bin/python" ] && "$tool/$key/bin/python" -I -c "import ${proof:-click, msgspec, rich}" 2>/dev/null
}

choose_python
[ "$best_rank" -ge 2 ] || refuse_python
[ "$best_rank" -ge 3 ] || offer_venv
key=$digest-$version
case $tool in
    /.local/*) unwritable "HOME is not set." ;;
esac
if ! why=$(mkdir -p -- "$tool" 2>&1) || ! [ -w "$tool" ]; then
    unwritable "${why:+The system says: ${why##*: }.}"
fi
whole() {
    [ "${GPU_SETUP_REBUILD:-}" != wanted ] && usable
}
if ! whole; then
    # one builder at a time; the lock goes with the process, so a killed one leaves none behind
    if command -v flock >/dev/null 2>&1 && (: >>"$tool/lock") 2>/dev/null; then
        exec 9>>"$tool/lock"
        if ! flock -n 9; then
            say "another start is making the environment; waiting for it"
            flock 9
        fi
        for leftover in "$tool/build.$key".*; do
            [ -d "$leftover" ] && [ "$(cd -P -- "$leftover" && pwd -P)" != "$(cd -P -- "$tool/$key" 2>/dev/null && pwd -P)" ] &&
                rm -rf -- "$leftover"
        done
    fi
    whole || build_environment
    exec 9>&-
    usable || {
        explain "The tool's environment was made, but its packages do not start." \
            "$("$tool/$key/bin/python" -I -c "import ${proof:-click, msgspec, rich}" 2>&1 | tail -n 1)" \
            "If $tool lies on a file system mounted noexec, set GPU_SETUP_HOME to a folder elsewhere."
        exit 4
    }
fi
python=$tool/$key/bin/python
[ -z "${GPU_SETUP_REBUILD:-}" ] || GPU_SETUP_REBUILD=done
[ -z "${GPU_SETUP_REBUILD:-}" ] || export GPU_SETUP_REBUILD
