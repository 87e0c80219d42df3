#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Follows docs/writing-operations.md to the letter.
#
#   scripts/follow-guide.sh DIRECTORY URL
#
# In the directory, which has to be empty, every block of the page is what its text says: the file that the
# line before it names, commands, or expressions for a shell of Erlang. URL replaces the address of tokamak.
set -eu
directory=$1
url=$2
guide=$(cd "$(dirname "$0")/.." && pwd)/docs/writing-operations.md
script=$directory/guide.sh

# A line that ends with `FILE`: names the file of the next block.
awk -v url="$url" '
    /^```[a-z]+$/ && !inside {
        inside = 1
        language = substr($0, 4)
        if (file != "") print "cat >" file " <<'\''END OF FILE'\''"
        else if (language == "erl") print "cat >session.erl <<'\''END OF FILE'\''"
        next
    }
    /^```$/ && inside {
        inside = 0
        if (file != "") print "END OF FILE"
        else if (language == "erl") {
            print "END OF FILE"
            print "ERL_LIBS=_build/default/lib erl -noshell -eval '\''ok = file:eval(\"session.erl\"), halt().'\''"
        }
        file = ""
        next
    }
    inside { gsub("\"URL\"", "\"" url "\""); print; next }
    match($0, /`[^`]+`:$/) { file = substr($0, RSTART + 1, RLENGTH - 3); next }
    NF { file = "" }
' "$guide" >"$script"

cd "$directory"
sh -eu "$script"
