"""The workflow of a gate for GitHub, and what it installs, as `gauntlet init --ci` writes them: those of examples/ci."""

from __future__ import annotations

WORKFLOW_TEXT = """\
name: robustness
on:
  pull_request:
    types: [opened, synchronize, reopened, labeled, unlabeled]
  push:
    branches: [main]
permissions:
  contents: read
jobs:
  gate:
    runs-on: ubuntu-latest
    timeout-minutes: 30
    env:
      OMP_NUM_THREADS: "1" # small models only
      # The commit whose baseline judges: a pull request's base, which is the first parent of the merge commit that is checked
      # out. Reviewers set the label where a change may renew the baseline.
      BASE: >-
        ${{ github.event_name == 'pull_request' && !contains(github.event.pull_request.labels.*.name, 'renews-baseline')
        && 'HEAD^1' || 'HEAD' }}
    steps:
      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1
        with:
          fetch-depth: 2 # a merge commit and its parents
          persist-credentials: false
      - uses: actions/setup-python@5fda3b95a4ea91299a34e894583c3862153e4b97 # v7.0.0
        with:
          python-version: "3.11"
      - run: pip install -r requirements-robustness.txt
      # Results that a push to main saved, below: of weights, data and settings that did not change.
      - uses: actions/cache/restore@27d5ce7f107fe9357f9df03efb73ab90386fccae # v5.0.5
        with:
          path: ${{ runner.temp }}/stored
          key: robustness-${{ github.sha }}
          restore-keys: robustness-
      # The baseline is named here too: without its file the gate must fail, not be left out. Results go to a fresh folder.
      - run: >-
          gauntlet run --gate robustness/baseline.json --baseline-from "$BASE"
          --reuse "$RUNNER_TEMP/stored" --out "$RUNNER_TEMP/robustness"
      - id: upload
        if: ${{ !cancelled() }}
        uses: actions/upload-artifact@bbbca2ddaa5d8feaa63e36b76fdaad77386f024f # v7.0.0
        with:
          name: robustness
          path: |
            ${{ runner.temp }}/robustness/gate.*
            ${{ runner.temp }}/robustness/pictures
          if-no-files-found: ignore
      - if: ${{ !cancelled() && steps.upload.outputs.artifact-url }}
        env:
          ARTIFACT: ${{ steps.upload.outputs.artifact-url }}
        run: echo "[Report and pictures of lost samples]($ARTIFACT)" >> "$GITHUB_STEP_SUMMARY"
      # Only the base branch writes what later runs reuse.
      - if: ${{ github.event_name == 'push' }}
        run: rm -rf "$RUNNER_TEMP/stored" && mv "$RUNNER_TEMP/robustness" "$RUNNER_TEMP/stored"
      - if: ${{ github.event_name == 'push' }}
        uses: actions/cache/save@27d5ce7f107fe9357f9df03efb73ab90386fccae # v5.0.5
        with:
          path: ${{ runner.temp }}/stored
          key: robustness-${{ github.sha }}
"""
"""Actions are pinned to the full digests of commits, with their versions beside them."""


def requirements(version: str) -> str:
    """What the gate needs besides the project; `version`: of Gauntlet."""
    return f"""\
# What the gate needs besides the project: pinned, so that a verdict changes with the model and with nothing else.
# OWNER/gauntlet is the address of Gauntlet's repository; what follows @ is a tag of it, or the full digest of a commit.
robust-gauntlet[pictures] @ git+https://github.com/OWNER/gauntlet@v{version}
"""
