%% SPDX-License-Identifier: Apache-2.0
%% What the tests of looks before a sleep share, for loops and for subprocesses.
-module(busy_poll_fixture).

-export([found/1, until_talk/2, are_counted/3]).

-include_lib("eunit/include/eunit.hrl").

%% @doc How many looks found something, of what `info' says.
found(#{busy_polls := Looks, busy_polls_in_vain := InVain}) ->
    Looks - InVain.

%% @doc Talks, by rounds of a hundred, until a condition holds, with a deadline: how often a look pays depends on the
%% machine.
until_talk(Rounds, Condition) ->
    call_fixture:until(fun() ->
        Rounds(100),
        Condition()
    end).

%% @doc The looks of one are among those of all, which the metric shows.
are_counted(#{busy_polls := Looks, busy_polls_in_vain := InVain}, Totals, Metric) ->
    #{busy_polls := All, busy_polls_in_vain := AllInVain} = Totals,
    ?assert(All >= Looks),
    ?assert(AllInVain >= InVain),
    Text = iolist_to_binary(tokamak_stats:prometheus()),
    [
        ?assertNotEqual(nomatch, binary:match(Text, <<Metric/binary, "{result=\"", Result/binary, "\"} ">>))
     || Result <- [<<"found">>, <<"in_vain">>]
    ].
