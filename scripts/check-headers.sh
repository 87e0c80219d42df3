#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every source file begins with its licence (after a #! line, where there is one).
set -eu
cd "$(dirname "$0")/.."

git ls-files --cached --others --exclude-standard -- '*.rs' '*.[eh]rl' '*.app.src' '*.ex' '*.exs' \
    '*.c' '*.h' '*.sh' '*.toml' '*.config' '*.script' Makefile .ci/run |
    {
        bad=0
        while IFS= read -r file; do
            if [ -e "$file" ] && ! head -n 2 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0'; then
                echo "$file: the line with SPDX-License-Identifier is missing"
                bad=1
            fi
        done
        exit $bad
    }
