#!/usr/bin/env bash
# Run `evalsvc gate` as a step of a CI job: settings from GATE_* variables, the verdict as output, its exit code kept.
set -uo pipefail

: "${GATE_CHECKPOINT:?is not set: name the checkpoint}" "${GATE_POLICY:?is not set: name the policy file}"

arguments=(gate --policy "$GATE_POLICY" --junit "${GATE_JUNIT:-evalsvc-gate.xml}")
[ -n "${GATE_BASE:-}" ] && arguments+=(--base "$GATE_BASE")
[ "${GATE_EVALUATE:-false}" = true ] && arguments+=(--evaluate)
while IFS= read -r argument; do
  [ -n "$argument" ] && arguments+=("$argument")
done <<<"${GATE_ARGUMENTS:-}"

evalsvc "${arguments[@]}" -- "$GATE_CHECKPOINT"
code=$?

case $code in
  0) verdict=pass ;;
  3) verdict=fail ;;
  4) verdict=inconclusive ;;
  *) verdict=none ;;
esac
if [ -n "${GITHUB_OUTPUT:-}" ]; then
  printf 'verdict=%s\nexit-code=%s\n' "$verdict" "$code" >>"$GITHUB_OUTPUT"
fi
exit "$code"
