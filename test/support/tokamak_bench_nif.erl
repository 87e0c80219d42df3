%% SPDX-License-Identifier: Apache-2.0
%% @doc Stubs of the baselines and test producers in native/tokamak_bench_nif.
-module(tokamak_bench_nif).

-export([noop/0]).

-on_load(load/0).

%% The build keeps this library out of priv/, which is shipped: it is in _build/native, beside the
%% _build/PROFILE/lib/tokamak that the VM finds this application in. Elsewhere the variable says where.
-spec load() -> ok | {error, term()}.
load() ->
    Dir = os:getenv("TOKAMAK_BENCH_NIF_DIR",
                    filename:join([code:lib_dir(tokamak), "..", "..", "..", "native"])),
    erlang:load_nif(filename:join(Dir, "tokamak_bench_nif"), 0).

%% @doc Does nothing: the cost of a NIF call.
-spec noop() -> ok.
noop() ->
    erlang:nif_error(not_loaded).
