%% SPDX-License-Identifier: Apache-2.0
%% Events that are held back for a handler, against a list.
-module(tokamak_held_tests).

-include_lib("eunit/include/eunit.hrl").

property_test_() ->
    {timeout, 60, {"what is held does what a list does", fun like_a_list/0}}.

like_a_list() ->
    Property = proper:forall(proper_types:list(command()), fun(Commands) -> holds(Commands, 1, tokamak_held:new(), []) end),
    ?assert(proper:quickcheck(Property, [{numtests, 500}, {max_size, 100}, quiet])).

command() ->
    Id = proper_types:range(1, 5),
    proper_types:frequency([
        {6, {in, Id}},
        {1, {take, Id}},
        {1, {out, proper_types:range(0, 4)}}
    ]).

holds([], _Number, Held, List) ->
    {Events, Rest} = tokamak_held:out(length(List), Held),
    same(Events, List) andalso has(0, Rest);
holds([{in, Id} | Commands], Number, Held, List) ->
    holds(Commands, Number + 1, tokamak_held:in(Id, Number, Held), List ++ [{Id, Number}]);
holds([{take, Id} | Commands], Number, Held, List) ->
    {OfId, Others} = lists:partition(fun({Of, _}) -> Of =:= Id end, List),
    {Taken, Rest} = tokamak_held:take(Id, Held),
    same(Taken, OfId) andalso has(length(Others), Rest) andalso holds(Commands, Number, Rest, Others);
holds([{out, Count} | Commands], Number, Held, List) ->
    {Out, Left} = lists:split(min(Count, length(List)), List),
    {Taken, Rest} = tokamak_held:out(Count, Held),
    same(Taken, Out) andalso has(length(Left), Rest) andalso holds(Commands, Number, Rest, Left).

same(Taken, Expected) ->
    Taken =:= [Event || {_, Event} <- Expected].

has(Count, Held) ->
    tokamak_held:len(Held) =:= Count.
