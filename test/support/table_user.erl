%% SPDX-License-Identifier: Apache-2.0
%% A foreign runtime in C that uses the C table, see table_user.c.
-module(table_user).

-export([fetch/2, retain/1, ids/1, push/5, reserve/2, unreserve/2, push_result/4, poll/2, tie/1, untie/2, ends/0]).

-on_load(load/0).

-define(STUB, erlang:nif_error(not_loaded)).

%% Where tokamak_bench_nif is, too.
load() ->
    Dir = os:getenv(
        "TOKAMAK_BENCH_NIF_DIR",
        filename:join([code:lib_dir(tokamak), "..", "..", "..", "native"])
    ),
    erlang:load_nif(filename:join(Dir, "table_user"), 0).

fetch(_Term, _Version) -> ?STUB.
retain(_Loop) -> ?STUB.
ids(_Count) -> ?STUB.
push(_Loop, _Id, _Type, _Data, _Timeout) -> ?STUB.
reserve(_Loop, _Count) -> ?STUB.
unreserve(_Loop, _Count) -> ?STUB.
push_result(_Loop, _Id, _IsError, _Term) -> ?STUB.
poll(_Loop, _Timeout) -> ?STUB.
tie(_Loop) -> ?STUB.
untie(_Loop, _Tie) -> ?STUB.
ends() -> ?STUB.
