%% SPDX-License-Identifier: Apache-2.0
%% An engine for the tests of native calls, see native/tokamak_test_engine.
-module(tokamak_test_engine).

-on_load(load/0).

-include_lib("tokamak/include/tokamak_engine_stubs.hrl").

%% Where tokamak_bench_nif is, too.
load() ->
    Dir = os:getenv(
        "TOKAMAK_BENCH_NIF_DIR",
        filename:join([code:lib_dir(tokamak), "..", "..", "..", "native"])
    ),
    erlang:load_nif(filename:join(Dir, "tokamak_test_engine"), 0).
