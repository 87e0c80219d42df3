%% SPDX-License-Identifier: Apache-2.0
%% Callback ids are unique over processes, blocks and native threads.
-module(tokamak_id_tests).

-include_lib("eunit/include/eunit.hrl").

id_test_() ->
    tokamak_test:cases([
        {"the first id of a VM is 1", fun the_first_id_is_1/0},
        {"ids increase", fun ids_increase/0},
        {"a block of ids is its caller's alone", fun a_block_is_its_callers/0},
        {"ids of many processes and of native threads are never the same", fun ids_are_unique/0},
        {"a count that cannot be is refused and costs no id", fun a_wrong_count_is_refused/0},
        {"no block takes the ids of all others", fun no_block_takes_the_ids_of_others/0}
    ]).

the_first_id_is_1() ->
    Peer = tokamak_test:start_peer(),
    ?assertEqual(1, peer:call(Peer, tokamak_id, next, [])),
    ?assertEqual(2, peer:call(Peer, tokamak_id, next, [5])),
    ?assertEqual(7, peer:call(Peer, tokamak_id, next, [])),
    peer:stop(Peer).

ids_increase() ->
    Ids = [tokamak_id:next() || _ <- lists:seq(1, 1000)],
    ?assertEqual(Ids, lists:usort(Ids)).

a_block_is_its_callers() ->
    First = tokamak_id:next(1000),
    ?assert(tokamak_id:next() >= First + 1000).

ids_are_unique() ->
    Parent = self(),
    Singles = fun() -> [tokamak_id:next() || _ <- lists:seq(1, 20_000)] end,
    Blocks = fun() ->
        lists:append([
            lists:seq(First, First + Size - 1)
         || Size <- lists:seq(1, 200), First <- [tokamak_id:next(Size)]
        ])
    end,
    Native = fun() ->
        Firsts = tokamak_test_nif:reserve_ids(tokamak_nif:table(), 5000, 3),
        lists:append([lists:seq(First, First + 2) || First <- Firsts])
    end,
    Takers = [
        spawn_link(fun() -> Parent ! {self(), Take()} end)
     || Take <- [Singles, Blocks, Native, Singles, Blocks, Native]
    ],
    Ids = lists:append([
        receive
            {Taker, Taken} -> Taken
        end
     || Taker <- Takers
    ]),
    ?assertEqual(length(Ids), length(lists:usort(Ids))),
    ?assertEqual(2 * (20_000 + 20_100 + 15_000), length(Ids)).

a_wrong_count_is_refused() ->
    Before = tokamak_id:next(),
    [
        ?assertError(badarg, tokamak_id:next(Count))
     || Count <- [0, -1, 1.0, one, <<1>>, 1 bsl 63, 1 bsl 64, 1 bsl 100, 16#7FFFFFFFFFFFFFFF]
    ],
    ?assertEqual(Before + 1, tokamak_id:next()).

no_block_takes_the_ids_of_others() ->
    Peer = tokamak_test:start_peer(),
    Next = fun(Arguments) -> peer:call(Peer, tokamak_id, next, Arguments) end,
    ?assertError(badarg, Next([(1 bsl 63) - 10])),
    ?assertError(badarg, Next([(1 bsl 40) + 1])),
    ?assertEqual(1, Next([1 bsl 40])),
    ?assertEqual(1 + (1 bsl 40), Next([])),
    peer:stop(Peer).
