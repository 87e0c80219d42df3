%% SPDX-License-Identifier: Apache-2.0
%% 10,000 children of a fresh VM, from its first start on, while user code plays with SIGCHLD.
-module(tokamak_subprocess_load_tests).

-include_lib("eunit/include/eunit.hrl").

-export([ten_thousand/0]).

-define(s, tokamak_subprocess).
-define(CHILDREN, 10000).
-define(AT_ONCE, 200).

load_test_() ->
    {"10,000 children, 200 at a time: every status right, every byte there, one exit, after the output",
        {timeout, 180, fun in_a_fresh_vm/0}}.

in_a_fresh_vm() ->
    Peer = tokamak_peer:start(),
    try
        ?assertEqual(#{right => ?CHILDREN}, tokamak_peer:call(Peer, fun ?MODULE:ten_thousand/0, 170000))
    after
        tokamak_peer:stop(Peer)
    end.

ten_thousand() ->
    Player = spawn_link(fun() -> play_with_sigchld([ignore, default, handle]) end),
    Self = self(),
    Workers = [
        spawn_link(fun() -> Self ! {done, self(), work(First, #{})} end)
     || First <- lists:seq(1, ?AT_ONCE)
    ],
    Results = [receive {done, Worker, Result} -> Result end || Worker <- Workers],
    unlink(Player),
    exit(Player, kill),
    os:set_signal(sigchld, default),
    lists:foldl(
        fun(Result, Sum) -> maps:fold(fun(K, N, Acc) -> maps:update_with(K, fun(M) -> M + N end, N, Acc) end, Sum, Result) end,
        #{},
        Results
    ).

play_with_sigchld([Disposition | Rest]) ->
    ok = os:set_signal(sigchld, Disposition),
    receive after 1 -> play_with_sigchld(Rest ++ [Disposition]) end.

work(N, Results) when N > ?CHILDREN ->
    Results;
work(N, Results) ->
    Result = child(N),
    work(N + ?AT_ONCE, maps:update_with(Result, fun(Count) -> Count + 1 end, 1, Results)).

%% By messages or by recv; by code or by signal; with both outputs.
child(N) ->
    Status = expected_status(N),
    End =
        case Status of
            {signal, Signal} -> "kill -" ++ integer_to_list(Signal) ++ " $$";
            Code -> "exit " ++ integer_to_list(Code)
        end,
    Bytes = N rem 7 * 1000,
    Script = io_lib:format("echo ~b; head -c ~b /dev/zero >&2; ~s", [N, Bytes, End]),
    {ok, P} = ?s:start(["sh", "-c", unicode:characters_to_list(Script)], #{stdin => null}),
    Got =
        case N rem 2 of
            0 -> take(P, <<>>, 0);
            1 -> ok = ?s:active(P, 1000), messages(P, <<>>, 0)
        end,
    case Got =:= {integer_to_binary(N), Bytes, Status} andalso nothing_more(P) of
        true -> right;
        false -> {wrong, N, Got}
    end.

expected_status(N) when N rem 10 =:= 0 -> {signal, 9};
expected_status(N) -> N rem 256.

take(P, Out, Err) ->
    case ?s:recv(P, 60000) of
        {ok, {stdout, Bin}} -> take(P, <<Out/binary, Bin/binary>>, Err);
        {ok, {stderr, Bin}} -> take(P, Out, Err + byte_size(Bin));
        {exit, Status} -> {string:trim(Out), Err, Status};
        {error, Reason} -> {Out, Err, {error, Reason}}
    end.

messages(P, Out, Err) ->
    receive
        {tokamak, P, {stdout, Bin}} -> messages(P, <<Out/binary, Bin/binary>>, Err);
        {tokamak, P, {stderr, Bin}} -> messages(P, Out, Err + byte_size(Bin));
        {tokamak, P, {exit, Status}} -> {string:trim(Out), Err, Status};
        {tokamak, P, {error, Reason}} -> {Out, Err, {error, Reason}}
    after 60000 -> {Out, Err, timeout}
    end.

nothing_more(P) ->
    ?s:recv(P, 0) =:= {error, closed} andalso
        receive
            {tokamak, _, _} -> false
        after 0 -> true
        end.
