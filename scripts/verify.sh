#!/usr/bin/env bash
# Independent checks with other people's programs; needs a package index. See CONTRIBUTING.md.
#
#   verify.sh PYTHON FOLDER     PYTHON of an environment with leanmatch; FOLDER keeps what was installed
#
# Each group gets an environment of its own in FOLDER, kept for the next time. It sees PYTHON's packages behind its
# own, so that torch is not installed again.
set -euo pipefail

python=$(realpath -s "$1")
mkdir -p "$2"
folder=$(realpath "$2")
here=$(cd "$(dirname "$0")/verify" && pwd)
export HF_HUB_OFFLINE=1

say() { printf '\n== %s\n' "$*"; }

# environment NAME REQUIREMENT...: make it or reuse it; sets $there to its interpreter.
environment() {
    local name="$1"
    shift
    there="$folder/$name/bin/python"
    if [ "$(cat "$folder/$name/complete" 2>/dev/null)" = "$python $*" ]; then return; fi
    rm -rf "${folder:?}/$name"
    "$python" -m venv "$folder/$name"
    # addsitedir, so that an editable install's own .pth files count as well
    "$python" -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
        >"$("$there" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/behind.pth"
    "$there" -m pip --disable-pip-version-check install --quiet "$@"
    echo "$python $*" >"$folder/$name/complete"
}

say "saved folders in sentence-transformers 5.1.2, 5.7.0 and the current one"
rm -rf "$folder/folders"
mkdir "$folder/folders"
"$python" "$here/make_folders.py" "$folder/folders"
"$python" "$here/load_folders.py" "$folder/folders" current
# The older one needs an older huggingface-hub, and that an older datasets than the ones behind.
environment sentence-transformers-5.1.2 sentence-transformers==5.1.2 "datasets<4"
"$there" "$here/load_folders.py" "$folder/folders" 5.1.2
environment sentence-transformers-5.7.0 sentence-transformers==5.7.0
"$there" "$here/load_folders.py" "$folder/folders" 5.7.0

environment evaluators mteb beir ranx
say "MTEB and BEIR run the encoder"
"$there" "$here/evaluators.py" "$folder/folders/minilm"

say "metrics against pytrec_eval and ranx"
"$there" "$here/metrics.py"
