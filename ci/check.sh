#!/usr/bin/env bash
# Is this branch worse than BASE? The same steps here and in CI: docs/ci.md.
#   bash ci/check.sh [BASE] [FOLDER]
# Nothing is trained or pulled, and no secret is needed. FOLDER gets summary.md and the report.
set -uo pipefail
base=${1:-origin/main}
out=${2:-logs/check}
mkdir -p "$out"

python -m nanogpt2 check --base "$base" --summary "$out/summary.md"
status=$?
if git rev-parse --quiet --verify "$base^{commit}" >/dev/null; then
  {
    printf '\n### All metrics\n\n' && dvc metrics diff --md "$base"
    printf '\n### All parameters\n\n' && dvc params diff --md "$base"
  } >>"$out/summary.md" || status=1
fi
if python -m nanogpt2 report --help >/dev/null 2>&1; then
  python -m nanogpt2 report --rev "$base" --out "$out/report.html" >&2 ||
    echo "no report: the line above says why" >&2
fi
if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then
  cat "$out/summary.md" >>"$GITHUB_STEP_SUMMARY"
fi
exit $status
