%% SPDX-License-Identifier: Apache-2.0
%% @doc Stubs of the baselines and test producers in native/tokamak_bench_nif.
-module(tokamak_bench_nif).

-export([noop/0]).

-on_load(load/0).

-spec load() -> ok | {error, term()}.
load() ->
    ok.

%% @doc Does nothing: the cost of a NIF call.
-spec noop() -> ok.
noop() ->
    erlang:nif_error(not_loaded).
