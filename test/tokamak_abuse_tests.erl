%% SPDX-License-Identifier: Apache-2.0
%% Some seconds of the abuse suite, see `make soak'.
-module(tokamak_abuse_tests).

-include_lib("eunit/include/eunit.hrl").

-define(MILLISECONDS, 20_000).

soak_test_() ->
    tokamak_test:cases(180, [{"abuse leaves nothing behind", fun abuse/0}]).

abuse() ->
    Peer = tokamak_test:start_peer(),
    Result = peer:call(Peer, tokamak_soak_abuse, run, [?MILLISECONDS], 170_000),
    #{grown := Grown, failures := Failures, counts := Counts} = Result,
    Grown =:= [] andalso Failures =:= [] orelse tokamak_soak_table:print(Result),
    ?assertEqual({[], []}, {Grown, Failures}),
    %% Those of that VM: this one may be a node.
    Loads = peer:call(Peer, tokamak_soak_loads, all, []),
    ?assertEqual([], [Name || {Name, _, _} <- Loads, not is_map_key(Name, Counts)]),
    ok = peer:stop(Peer).
