#!/usr/bin/env bash
# Known weaknesses and licences of all packages of an environment. Needs a package index and the advisory databases.
#
#   audit.sh PYTHON FOLDER     PYTHON of the environment; FOLDER keeps the tools and the list of licences
set -euo pipefail

python=$(realpath -s "$1")
mkdir -p "$2"
folder=$(realpath "$2")

if [ ! -f "$folder/complete" ]; then
    "$python" -m venv "$folder/venv"
    "$folder/venv/bin/pip" --disable-pip-version-check install --quiet pip-audit pip-licenses
    touch "$folder/complete"
fi

"$folder/venv/bin/pip-licenses" --python "$python" --order license --format markdown --output-file "$folder/licences.md" >/dev/null
echo "licences of $(($(wc -l <"$folder/licences.md") - 2)) packages: $folder/licences.md"
# Licences that ask more of those who pass our work on than to keep a notice.
grep -iE "GPL|AGPL|SSPL|Commons Clause|UNKNOWN" "$folder/licences.md" || echo "none is copyleft or unknown"

# --strict: a package that could not be asked about is a failure, not a pass. leanmatch itself is in no index; a
# local version such as 2.13.0+cpu is asked for by its public part.
"$python" -m pip --disable-pip-version-check freeze --exclude leanmatch |
    grep -E '^[A-Za-z0-9._-]+==' | sed 's/+[A-Za-z0-9.]*$//' >"$folder/requirements.txt"
"$folder/venv/bin/pip-audit" --strict --no-deps --disable-pip --requirement "$folder/requirements.txt"
